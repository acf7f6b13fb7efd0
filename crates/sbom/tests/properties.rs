//! Readers take anything: nothing panics or takes long, and memory stays small.

use proptest::collection::vec;
use proptest::prelude::*;
use rbuild_sbom::{Kind, Take, readers};
use rbuild_testkit::property::{grows_with_its_input, holds};
use rbuild_types::CancelToken;

/// Text of pieces that mean something to one reader or another.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "Package: a",
        "Version: 1:2-3",
        "Status: install ok installed",
        "\n",
        "\n\n",
        "P:x",
        "V:1",
        "L:MIT",
        " more",
        "Format: x\n",
        "License: GPL-2+ or MIT,",
        "Name: A_b",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"packages\"",
        "\"dependencies\"",
        "\"node_modules/@a/b\"",
        "\"version\"",
        "\"1\"",
        "null",
        "true",
        "\"default\"",
        "[[package]]\n",
        "name = \"a\"\n",
        "version = \"1\"\n",
        "packages:\n",
        "  /@a/b/1_c@2: {}\n",
        "  a@1(b@2):\n",
        "&a ",
        "*a",
        "@a/b@npm:^1, c@2:\n",
        "  version \"1\"\n",
        "  version: 2\n",
        "GEM\n  specs:\n",
        "    rack (2.2)\n",
        "require (\n",
        ")\n",
        "a v1\n",
        "replace a => b v2\n",
        "// x",
        "\u{0}",
        "é",
        "\t",
    ]);
    vec(pieces, 0..60).prop_map(|pieces| pieces.concat())
}

fn read_all(text: &[u8]) {
    let take: Take<'_> = &mut |_| true;
    readers::dpkg(text, take);
    readers::copyright(text);
    readers::apk(text, take);
    readers::metadata(text);
    readers::gemfile_lock(text, take);
    readers::yarn_lock(text, take);
    readers::go_mod(text, take);
    let _ = readers::pipfile_lock(text, take);
    let _ = readers::composer(text, take);
    let _ = readers::package_json(text);
    let _ = readers::package_lock(text, take);
    let _ = readers::pnpm_lock(text, take);
    let _ = readers::toml_lock(Kind::Cargo, text, take);
}

#[test]
fn any_text_is_read_or_refused() {
    holds("lists of packages", &texts(), |text| read_all(text.as_bytes()));
    holds("lists of bytes", &vec(any::<u8>(), 0..300), |bytes| read_all(&bytes));
}

/// A beginning that a reader takes for its own, and bytes most of which are small numbers.
fn databases() -> impl Strategy<Value = Vec<u8>> {
    let mut sqlite = b"SQLite format 3\0\x02\0".to_vec();
    sqlite.resize(100, 0);
    let mut berkeley = vec![0; 12];
    berkeley.extend(0x0006_1561_u32.to_le_bytes());
    berkeley.extend([9, 0, 0, 0, 0, 2, 0, 0]);
    let elf = b"\x7fELF\x02\x01".to_vec();
    let starts = prop::sample::select(vec![sqlite, b"RpmP".to_vec(), berkeley, elf, Vec::new()]);
    let byte = prop_oneof![6 => 0..16_u8, 1 => any::<u8>(), 1 => Just(13_u8), 1 => Just(5_u8)];
    (starts, vec(byte, 0..4096)).prop_map(|(start, rest)| [start, rest].concat())
}

#[test]
fn any_database_is_read_or_refused() {
    holds("databases", &databases(), |bytes| {
        let _ = readers::rpm(bytes.as_slice(), &CancelToken::default(), &mut |_| true);
        readers::rpm_header(&bytes);
        readers::build_info(bytes.as_slice());
    });
}

#[test]
fn long_lists_take_as_much_longer() {
    let repeated = |piece: &'static str| move |size: usize| piece.repeat(size);
    let dpkg = repeated("Package: a\nVersion: 1\n\n");
    grows_with_its_input("dpkg", 5000, dpkg, |text| readers::dpkg(text.as_bytes(), &mut |_| true));
    let yarn = repeated("a@1:\n  version \"1\"\n");
    grows_with_its_input("yarn", 5000, yarn, |text| {
        readers::yarn_lock(text.as_bytes(), &mut |_| true)
    });
    let go = repeated("require a v1\n");
    grows_with_its_input("go.mod", 5000, go, |text| {
        readers::go_mod(text.as_bytes(), &mut |_| true)
    });
    let gems = repeated("GEM\n  specs:\n    rack (2.2)\n");
    grows_with_its_input("gems", 5000, gems, |text| {
        readers::gemfile_lock(text.as_bytes(), &mut |_| true)
    });
    let lock = repeated("[[package]]\nname = \"a\"\nversion = \"1\"\n");
    grows_with_its_input("toml", 1000, lock, |text| {
        let _ = readers::toml_lock(Kind::Cargo, text.as_bytes(), &mut |_| true);
    });
}
