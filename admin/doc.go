// Package admin is how a running node is looked at and changed from outside:
// an HTTP API with JSON bodies on a Unix socket in the data directory, and its
// Go client. Who may open the socket, mode 0600, may do everything.
//
//	GET    /v1/status
//	GET    /v1/luns
//	GET    /v1/volumes
//	POST   /v1/volumes                  {"name":, "image":, "size":}
//	GET    /v1/volumes/NAME
//	DELETE /v1/volumes/NAME
//	PUT    /v1/volumes/NAME/pinned      {"pinned":}
//	GET    /v1/volumes/NAME/content     the bytes, see content.go
//	GET    /v1/images
//	GET    /v1/images/NAME
//	DELETE /v1/images/NAME
//	GET    /v1/check
//	GET    /metrics                     Prometheus text format
//
// Bodies are the types of package node. An error has a status of 400 or more
// and a body {"error": "one line", "code": "not_found"}; codes are not_found,
// exists, in_use, invalid and failed.
//
// By hand: curl --unix-socket data/skylun.sock http://node/v1/status
package admin
