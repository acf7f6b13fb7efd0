//! What strangers' files may cost, each limit with its reason.
//!
//! Nothing is allocated by a claimed size. What is beyond a limit is left out, and a note says so.

/// Bytes of one list of packages that is read whole. The largest lock files of large projects have
/// a few MiB.
pub const LIST: u64 = 16 << 20;
/// Bytes of the status file of dpkg, or the database of apk: a full desktop has 10 MiB.
pub const DATABASE: u64 = 64 << 20;
/// Bytes of all `copyright` files of dpkg's packages: those of a full desktop have 60 MiB. Their
/// names are the image's, so many may be one file.
pub const COPYRIGHTS: u64 = 256 << 20;
/// Bytes of what describes one installed package; the fields that count come first.
pub const DESCRIPTION: u64 = 1 << 20;
/// Bytes of the header of one rpm package. rpm itself takes up to 256 MiB, of which file lists are
/// the most; the largest packages of Fedora have 10.
pub const RPM_HEADER: usize = 32 << 20;
/// Bytes of a rpm database: as many packages as there are have 300 MiB.
pub const RPM_DATABASE: u64 = 1 << 30;
/// Bytes of the list of modules in a Go program.
pub const BUILD_INFO: usize = 4 << 20;
/// Packages of one image.
pub const PACKAGES: usize = 200_000;
/// Bytes of all names, versions and paths that are kept.
pub const TEXT: usize = 64 << 20;
/// Bytes of one name, version or licence.
pub const FIELD: usize = 1024;
/// Licences of one package: OpenLDAP's in Debian has 37.
pub const LICENCES: usize = 256;
/// Places that are named for one package that is found in several.
pub const PLACES: usize = 8;
/// Notes of one image.
pub const NOTES: usize = 100;
/// Directories inside one another that are looked into.
pub const DEPTH: usize = 128;
/// Files and directories that are looked at.
pub const ENTRIES: usize = 4_000_000;
