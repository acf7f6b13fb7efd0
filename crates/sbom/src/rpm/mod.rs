//! The databases of rpm, in the three forms that its versions have had.

mod berkeley;
mod header;
mod ndb;
mod sqlite;

pub use header::header;

use rbuild_types::CancelToken;

use crate::bytes_at::BytesAt;
use crate::limits;
use crate::package::Take;

/// Where they are; the first that is there counts.
pub(crate) const PLACES: [&str; 6] = [
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/Packages.db",
    "var/lib/rpm/Packages.db",
    "usr/lib/sysimage/rpm/Packages",
    "var/lib/rpm/Packages",
];

/// Packages of a database, whichever form it has, as far as it can be read.
pub fn packages(
    database: &(impl BytesAt + ?Sized),
    cancel: &CancelToken,
    take: Take<'_>,
) -> Result<(), String> {
    if database.size() > limits::RPM_DATABASE {
        return Err("it is larger than any database of rpm".to_owned());
    }
    // Not every header is that of a package.
    let mut add = |bytes: &[u8]| header(bytes).is_none_or(&mut *take) && !cancel.is_cancelled();
    let start = database.bytes(0, 16).unwrap_or_default();
    let read = if start == sqlite::MAGIC {
        sqlite::blobs(database, &mut add)
    } else if start.starts_with(ndb::MAGIC) {
        ndb::blobs(database, &mut add)
    } else if let Some(order) = berkeley::order(&start) {
        berkeley::blobs(database, order, &mut add)
    } else {
        return Err("this kind of rpm database is not known".to_owned());
    };
    read.ok_or_else(|| "this rpm database is damaged".to_owned())
}

/// Takes the header of one package, and says whether more are wanted.
type TakeHeader<'a> = &'a mut dyn FnMut(&[u8]) -> bool;
