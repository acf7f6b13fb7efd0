//! What ADD makes of archives, told by what is in them.

use std::io::Write;

use crate::support::{Place, build};
use crate::tests;

tests![archives_of_every_kind_are_unpacked];

fn archives_of_every_kind_are_unpacked() {
    let place = Place::new();
    let engine = place.engine();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    tar.append_data(&mut header, "in/side", &b"ok"[..]).unwrap();
    let bytes = tar.into_inner().unwrap();
    let level = bzip2::Compression::default();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&bytes).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), level);
    bzip2.write_all(&bytes).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&bytes).unwrap();
    place.write("plain", &bytes);
    // Told by its content, whatever the name.
    place.write("gzip", gzip.finish().unwrap());
    place.write("bzip2.txt", bzip2.finish().unwrap());
    place.write("xz.tar", xz.finish().unwrap());
    place.write("zstd", zstd::encode_all(&bytes[..], 1).unwrap());
    for name in ["plain", "gzip", "bzip2.txt", "xz.tar", "zstd"] {
        build(&engine, &place.request(&format!("FROM base\nADD {name} /to/\n")).tag("app"));
        assert_eq!(place.sh(&engine, "app", "ls /to; cat /to/in/side"), "in\nok", "{name}");
    }
}
