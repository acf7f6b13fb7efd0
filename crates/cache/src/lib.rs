//! Keeps blobs by digest and step records by cache key on disk, with locks and garbage collection.
