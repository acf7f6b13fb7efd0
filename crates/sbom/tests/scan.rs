//! A root filesystem with everything in it, and what is said of it.

#![allow(clippy::unwrap_used, reason = "a test, also in its helpers")]

use std::path::Path;

use rbuild_rooted::Root;
use rbuild_sbom::{Found, Kind, Subject, document, scan};
use rbuild_types::CancelToken;
use rustix::fs::{CWD, FileType, Mode};
use serde_json::Value;

fn write(root: &Path, at: &str, text: impl AsRef<[u8]>) {
    let path = root.join(at);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, text).unwrap();
}

fn scanned(root: &Path) -> Found {
    scan(&Root::open(root).unwrap(), &CancelToken::default()).unwrap()
}

fn listed(found: &Found) -> Vec<String> {
    let shown = |package: &rbuild_sbom::Package| {
        format!("{} {} {}", package.kind.purl_type(), package.name, package.version)
    };
    found.packages.keys().map(shown).collect()
}

const SUBJECT: Subject<'static> =
    Subject { name: "app:1", created: "2026-01-02T03:04:05.678Z", tool: "rbuild-0.1.0" };

fn debian(root: &Path) {
    write(root, "usr/lib/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
    fs_err::create_dir_all(root.join("etc")).unwrap();
    fs_err::os::unix::fs::symlink("/usr/lib/os-release", root.join("etc/os-release")).unwrap();
    let status = "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\n\
                  Maintainer: Mark Brown <broonie@debian.org>\n\
                  Source: zlib\nVersion: 1:1.2.13.dfsg-1\n";
    write(root, "var/lib/dpkg/status", status);
    let copyright =
        "Format: https://x/\n\nFiles: *\nLicense: Zlib\n\nFiles: d\nLicense: own words\n";
    write(root, "usr/share/doc/zlib1g/copyright", copyright);
    write(root, "var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2024a\n");
    write(root, "var/lib/dpkg/status.d/tzdata.md5sums", "Package: no\n");
}

#[test]
fn databases_and_lists_are_found_wherever_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    debian(root);
    write(root, "lib/apk/db/installed", "P:musl\nV:1.2.4\n\n");
    write(root, "usr/lib/python3/site-packages/a.dist-info/METADATA", "Name: A.B\nVersion: 1\n");
    write(root, "srv/x.egg-info/PKG-INFO", "Name: egg\nVersion: 2\n");
    write(root, "app/node_modules/@s/m/package.json", r#"{"name": "@s/m", "version": "3"}"#);
    write(root, "app/node_modules/m/yarn.lock", "inner@1:\n  version \"1\"\n");
    write(root, "app/node_modules/m/lib/package.json", r#"{"name": "no", "version": "3"}"#);
    write(root, "app/yarn.lock", "outer@1:\n  version \"1.5.0\"\n");
    write(root, "app/Cargo.lock", "[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n");
    write(root, "app/uv.lock", "[[package]]\nname = \"Django\"\nversion = \"5\"\n");
    write(root, "app/go.mod", "module me\nrequire golang.org/x/text v0.3.0\n");
    write(root, "app/Gemfile.lock", "GEM\n  specs:\n    rack (2.2.3)\n");
    write(root, "usr/lib/ruby/gems/3.1.0/specifications/default/json-2.6.1.gemspec", "");
    write(root, "app/composer.lock", r#"{"packages": [{"name": "a/b", "version": "v1"}]}"#);
    write(root, "proc/Cargo.lock", "[[package]]\nname = \"no\"\nversion = \"1\"\n");
    let found = scanned(root);
    let expected = [
        "apk musl 1.2.4",
        "cargo serde 1.0.0",
        "composer a/b v1",
        "deb tzdata 2024a",
        "deb zlib1g 1:1.2.13.dfsg-1",
        "gem json 2.6.1",
        "gem rack 2.2.3",
        "golang golang.org/x/text v0.3.0",
        "npm @s/m 3",
        "npm outer 1.5.0",
        "pypi a-b 1",
        "pypi django 5",
        "pypi egg 2",
    ];
    assert_eq!(listed(&found), expected);
    assert!(found.notes.is_empty(), "{:?}", found.notes);
}

#[test]
fn a_database_of_rpm_is_read_as_sqlite_writes_it() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("usr/lib/sysimage/rpm/rpmdb.sqlite");
    fs_err::create_dir_all(place.parent().unwrap()).unwrap();
    let database = rusqlite::Connection::open(&place).unwrap();
    let tables = "CREATE TABLE Name (key TEXT, hnum INTEGER);
                  CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);";
    database.execute_batch(tables).unwrap();
    // Rows on a page, rows that continue on others, and more than one page of them.
    for number in 0..500_usize {
        let header = rpm_header(&format!("package-{number:03}"), number * 37);
        let insert = "INSERT INTO Packages (blob) VALUES (?1)";
        database.execute(insert, [header]).unwrap();
    }
    database.close().unwrap();
    let found = scanned(directory.path());
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    let expected: Vec<_> = (0..500).map(|number| format!("rpm package-{number:03} 1-1")).collect();
    assert_eq!(listed(&found), expected);
    // A page that is cut off is no end.
    let bytes = fs_err::read(&place).unwrap();
    fs_err::write(&place, &bytes[..bytes.len() - 4096]).unwrap();
    let found = scanned(directory.path());
    let note = "/usr/lib/sysimage/rpm/rpmdb.sqlite: this rpm database is damaged";
    assert_eq!(found.notes.iter().collect::<Vec<_>>(), [note]);
}

#[test]
fn rows_of_rpm_that_share_their_bytes_are_damage() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("var/lib/rpm/rpmdb.sqlite");
    fs_err::create_dir_all(place.parent().unwrap()).unwrap();
    let database = rusqlite::Connection::open(&place).unwrap();
    let tables = "PRAGMA page_size = 65536;
                  CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL);";
    database.execute_batch(tables).unwrap();
    for number in 0..400 {
        let header = rpm_header("bash", if number == 0 { 8192 } else { 0 });
        database.execute("INSERT INTO Packages (blob) VALUES (?1)", [header]).unwrap();
    }
    let select = "SELECT rootpage FROM sqlite_master WHERE name = 'Packages'";
    let page: usize = database.query_row(select, [], |row| row.get(0)).unwrap();
    database.close().unwrap();
    assert!(scanned(directory.path()).notes.is_empty());
    // Every cell of the only page becomes that of the large row.
    let mut bytes = fs_err::read(&place).unwrap();
    let cells = &mut bytes[(page - 1) * 65536 + 8..][..400 * 2];
    let first = [cells[0], cells[1]];
    cells.as_chunks_mut().0.fill(first);
    fs_err::write(&place, bytes).unwrap();
    let found = scanned(directory.path());
    let note = "/var/lib/rpm/rpmdb.sqlite: this rpm database is damaged";
    assert_eq!(found.notes.iter().collect::<Vec<_>>(), [note]);
}

/// A header with a name, a version, a release, and data that nobody asks for.
fn rpm_header(name: &str, more: usize) -> Vec<u8> {
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, value) in [(1000_u32, name), (1001, "1"), (1002, "1")] {
        let offset = u32::try_from(data.len()).unwrap();
        index.extend([tag, 6, offset, 1].iter().flat_map(|number| number.to_be_bytes()));
        data.extend(value.as_bytes());
        data.push(0);
    }
    data.resize(data.len() + more, b'x');
    let sizes = [3, u32::try_from(data.len()).unwrap()];
    [sizes.iter().flat_map(|size| size.to_be_bytes()).collect(), index, data].concat()
}

#[test]
fn locks_of_gems_count_only_where_nobody_installed_them() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let lock = |gem: &str| format!("GEM\n  specs:\n    {gem} (1.0)\n");
    write(root, "srv/gems/app/Gemfile.lock", lock("served"));
    write(root, "srv/gems/app-1.0/Gemfile.lock", lock("numbered"));
    write(root, "srv/specifications/other-1.0.gemspec", "");
    let home = "usr/lib/ruby/gems/3.1.0";
    write(root, &format!("{home}/specifications/rack-2.2.gemspec"), "");
    write(root, &format!("{home}/gems/rack-2.2/example/Gemfile.lock"), lock("no"));
    write(root, &format!("{home}/bundler/gems/rails-0123456789ab/Gemfile.lock"), lock("no"));
    let expected = ["gem numbered 1.0", "gem other 1.0", "gem rack 2.2", "gem served 1.0"];
    assert_eq!(listed(&scanned(root)), expected);
}

#[test]
fn what_cannot_be_read_is_noted() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    write(root, "var/lib/rpm/Packages", "no database");
    write(root, "a/Cargo.lock", "[[");
    write(root, "a/package-lock.json", "{");
    write(root, "b/Cargo.lock", vec![b' '; (16 << 20) + 1]);
    fs_err::create_dir_all(root.join("c/yarn.lock")).unwrap();
    let fifo = root.join("c/Gemfile.lock");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    fs_err::os::unix::fs::symlink("/etc/passwd", root.join("c/go.mod")).unwrap();
    fs_err::create_dir_all(root.join("lib/apk/db")).unwrap();
    fs_err::os::unix::fs::symlink("installed", root.join("lib/apk/db/installed")).unwrap();
    let found = scanned(root);
    assert!(found.packages.is_empty());
    let notes: Vec<_> = found.notes.iter().map(String::as_str).collect();
    let starts =
        ["/a/Cargo.lock: ", "/a/package-lock.json: ", "/b/Cargo.lock: ", "/lib/apk/db/installed: "];
    for start in starts {
        assert!(notes.iter().any(|note| note.starts_with(start)), "{start} is not in {notes:?}");
    }
    assert!(notes.contains(&"/var/lib/rpm/Packages: this kind of rpm database is not known"));
    let document: Value = serde_json::from_slice(&document(&found, &SUBJECT)).unwrap();
    let comment = document["comment"].as_str().unwrap();
    assert!(comment.starts_with("this list may be incomplete: /a/Cargo.lock: "), "{comment}");
}

#[test]
fn a_deep_tree_ends_the_way_down() {
    let directory = tempfile::tempdir().unwrap();
    let deep = vec!["d"; 200].join("/");
    write(directory.path(), &format!("{deep}/go.mod"), "require a v1");
    write(directory.path(), "e/go.mod", "require b v1");
    let found = scanned(directory.path());
    assert_eq!(listed(&found), ["golang b v1"]);
    assert_eq!(found.notes.len(), 1);
}

#[test]
fn the_document_has_what_spdx_asks_for() {
    let directory = tempfile::tempdir().unwrap();
    debian(directory.path());
    let lock = "[[package]]\nname = \"a b\"\nversion = \"1\"\n[[package]]\nname = \"a-b\"\nversion = \"1\"\n";
    write(directory.path(), "Cargo.lock", lock);
    let found = scanned(directory.path());
    assert_eq!(found.packages.keys().filter(|package| package.kind == Kind::Deb).count(), 2);
    let bytes = document(&found, &SUBJECT);
    assert_eq!(bytes, document(&scanned(directory.path()), &SUBJECT), "it differs each time");
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    for (name, value) in [
        ("spdxVersion", "SPDX-2.3"),
        ("dataLicense", "CC0-1.0"),
        ("SPDXID", "SPDXRef-DOCUMENT"),
        ("name", "app:1"),
    ] {
        assert_eq!(document[name], value);
    }
    let namespace = document["documentNamespace"].as_str().unwrap();
    assert!(namespace.starts_with("https://spdx.org/spdxdocs/rbuild-") && !namespace.contains('#'));
    assert_eq!(document["creationInfo"]["created"], "2026-01-02T03:04:05Z");
    assert_eq!(document["creationInfo"]["creators"][0], "Tool: rbuild-0.1.0");
    let packages = document["packages"].as_array().unwrap();
    let mut ids = Vec::new();
    for package in packages {
        let id = package["SPDXID"].as_str().unwrap();
        let letters = id.strip_prefix("SPDXRef-").unwrap();
        assert!(letters.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte)));
        assert!(!ids.contains(&id), "{id} is there twice");
        assert!(package["name"].is_string() && package["downloadLocation"] == "NOASSERTION");
        assert_eq!(package["filesAnalyzed"], false);
        ids.push(id);
    }
    let relations = document["relationships"].as_array().unwrap();
    assert_eq!(relations[0]["relationshipType"], "DESCRIBES");
    for (relation, id) in relations.iter().zip(&ids) {
        assert_eq!(relation["relatedSpdxElement"], *id);
    }
    assert_eq!(relations.len(), ids.len());
    let zlib = packages.iter().find(|package| package["name"] == "zlib1g").unwrap();
    let purl = "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=amd64&distro=debian-12&upstream=zlib";
    assert_eq!(zlib["externalRefs"][0]["referenceLocator"], purl);
    assert_eq!(zlib["supplier"], "Organization: Mark Brown (broonie@debian.org)");
    let licence = zlib["licenseDeclared"].as_str().unwrap();
    let (known, named) = licence.split_once(" AND ").unwrap();
    assert_eq!(known, "Zlib");
    let extracted = &document["hasExtractedLicensingInfos"][0];
    assert_eq!(
        (&extracted["licenseId"], &extracted["extractedText"]),
        (&named.into(), &"own words".into())
    );
}
