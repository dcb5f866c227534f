// Package layer keeps image layers unpacked, ready to be the lower directories of an overlay:
//
//	<root>/sha256/<diffID>/          a layer that stands alone, whatever lies below it
//	<root>/chain/sha256/<chainID>/   a layer that was unpacked with a look at its parents
//	    fs/                          the directory tree: overlay whiteouts (character device 0:0),
//	                                 opaque directories (trusted.overlay.opaque=y), owners unshifted
//	    recipe.zst                   everything in the layer's tar that is not file content
//	    extra/<n>                    content that a later entry of the same tar replaced
//	    layer.json                   DiffID, parents, sizes; written last
//	    durable                      present once all of the above is known to be on the disk
//	<root>/tmp/                      layers being made; emptied by Open
//	<root>/trash/                    layers being deleted
//
// # Alone or in a chain
//
// All layers of an image unpack at the same time, each into a directory named by its DiffID, and two
// images share a layer even over different parents. A few layers do not stand alone: the tar names
// dir/file and not dir/ (in an overlay, a made-up dir/ would hide the owner and mode that the layer
// below gives it, or a symbolic link of that name), or a hard link leads to a file of a lower layer.
// Unpack notices, waits until the parents are there, plays the layer's tar again with the parents in
// view, and files the result under its ChainID. Whiteouts do not need the parents.
//
// # The same tar again
//
// Tar returns a layer's tar archive byte by byte as it came in: recipe.zst has its headers, padding and
// end, and refers to the files of fs/ for the rest.
//
// # What survives what
//
// A layer appears by rename, after its last byte was verified against the DiffID: killing the process
// leaves no half layer. Nothing is synced while unpacking. Some seconds later (or at Sync) one syncfs
// covers all new layers, and each gets its mark "durable". After the machine itself went down, Open
// discards the layers without the mark; whoever needs one unpacks it again from its blob. A layer that
// has no blob yet (Adopt) is passed to Sync before a name is given to it.
//
// The root directory has mode 0700: a layer may hold set-uid files and device nodes, and no user of the
// host may reach them.
package layer
