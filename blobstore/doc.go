// Package blobstore keeps images where every node can read them: in Azure Blob
// Storage, or in a directory.
//
// An image is immutable content with a name: a raw disk, a fixed VHD or an
// ISO. It gets there by Import, or by any other means: a blob that somebody
// else put into the container is an image as it is.
//
//	Store ── Stat, List ──▶ Info ── Image ──▶ Image   ReadAt, DataRanges
//	  └───── Create ──▶ Upload ── WriteAt…, Commit ──▶ Info
//
// # Identity
//
// An Info names one content: the name and an Identity that changes whenever
// the content does (Azure: the ETag; a file: size, modification time and inode
// number). An Image is pinned to it: a read returns bytes of that content or
// fails with ErrChanged. Image does no I/O, so an Info kept from an earlier run
// gives a reader also while the store cannot be reached.
//
// # Sizes and formats
//
// The format follows from the content alone. An image ends in a VHD footer or
// it does not; see Format. Size is what a disk made of the image has: without
// the footer, and rounded up to whole sectors of 512 bytes, where what lies
// beyond the end of the blob reads as zeros.
//
// # Names
//
// A name is one or more components separated by slashes; see CheckName.
// Components that start with a dot are never listed and cannot be named: the
// store keeps its own things there.
//
// # Documents
//
// Beside an image the store keeps small documents about it, one of each Kind.
// They are written whole and conditionally, so that of several writers none
// undoes what another has done without having seen it, and go with the image. What
// is in one is not checked here: whoever reads it does not trust it.
//
// # Errors and time
//
// Every error of a Store wraps one of the sentinels in errors.go and is one
// line that says what failed and what to do. Requests to Azure are tried again
// with growing, random pauses when the failure may pass, within bounds set by
// Config. Secrets are in no error and no log line.
//
// # Uploads
//
// An Upload fills a page blob, or a sparse file in the directory .uploads, that
// nobody sees before Commit. After a crash the next Create with the same
// source goes on at the last Checkpoint. One upload per name: a lease on the
// blob, or a lock on the file, keeps a second one out; the lease of a killed one
// runs out within seconds, which the next one waits for. Delete removes what an
// unfinished upload left.
//
// # Stripes
//
// An image may be laid over several objects, its parts, in the folder .stripes:
// CreateStriped. Under its name there is a manifest then, which tells where the
// parts are, and is read once; the layout in an Info saves that for later runs.
// Everything else is as with one object: the image appears with its manifest,
// an upload that was stopped is gone on with, and a part that is not what the
// manifest says is ErrChanged. The format is in stripes.go.
//
// # What is needed of Azure
//
// Reading needs to list and read blobs of any type. Importing makes page
// blobs, which not every kind of account offers, in a container that it creates
// when there is none.
package blobstore
