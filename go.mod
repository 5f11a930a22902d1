module skylun

go 1.26
