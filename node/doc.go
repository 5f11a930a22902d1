// Package node is one running server: it turns a configuration into devices,
// devices into units and units into targets, and takes them down again in
// reverse.
//
//	Config ── Validate ──▶ every problem of the file, each naming its key
//	   │
//	 Start                 all checks first, then what is missing is created
//	   │
//	   ├─ meta, raid, blobstore      what is local, what is in the store
//	   ├─ images                     one cache per image, shared by its volumes
//	   ├─ layers                     opened once, shared by the volumes above
//	   ├─ volumes                    layers over an image or over nothing
//	   ├─ units                      a SCSI disk per volume
//	   ├─ targets, portals           accept only when all of the above is there
//	   └─ cleaner                    merges layers that no snapshot needs any more
//	   │
//	 Close                 stop accepting, drain, flush, close; meta last
//
// Open gives the same access to volumes and images without exporting
// anything, for commands that run while no server does. Two processes never
// share a data directory: the second gets an error at once.
//
// What the file declares is created when missing and never deleted because a
// line is gone. An image is remembered as it was when the first volume was
// made from it, so a volume opens while the store cannot be reached, and never
// shows another content than the one it was made from.
package node
