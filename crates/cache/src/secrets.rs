//! What is remembered of secrets: keyed digests, from which nobody learns the value.
//!
//! The key is the store's own, made of random bytes when it is first needed, and leaves the store
//! never. So the digest of a secret says something only to who has the store, or the same text as
//! a key: machines that share a cache may agree on one.

use rusqlite::OptionalExtension as _;

use crate::error::CacheError;
use crate::file;
use crate::index::Durability;
use crate::store::Store;

/// Keeps keys that are texts apart from whatever else they are used for.
const CONTEXT: &str = "rbuild 2026-11 keyed digests of secrets";
/// Where the store's own key is.
const NAME: &str = "secrets-key";

impl Store {
    /// The keyed digest of a secret, as hexadecimal digits; another for each id. `key` is a text
    /// to take in the place of the store's own key.
    ///
    /// # Errors
    ///
    /// When the index cannot be read or written.
    pub fn mac(&self, key: Option<&str>, id: &str, value: &[u8]) -> Result<String, CacheError> {
        let key = match key {
            Some(text) => text.to_owned(),
            None => self.secrets_key()?,
        };
        let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key(CONTEXT, key.as_bytes()));
        hasher.update(&(id.len() as u64).to_le_bytes()).update(id.as_bytes()).update(value);
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn secrets_key(&self) -> Result<String, CacheError> {
        if let Some(key) = self.meta(NAME)? {
            return Ok(key);
        }
        let new = format!("{}{}", file::random_name(16)?, file::random_name(16)?);
        self.index().write(Durability::Lazy, |index| {
            // Another process may have been faster: one key is for all.
            let sql = "INSERT OR IGNORE INTO meta(name, value) VALUES (?1, ?2)";
            index.prepare_cached(sql)?.execute((NAME, &new))?;
            let sql = "SELECT value FROM meta WHERE name = ?1";
            let found =
                index.prepare_cached(sql)?.query_row([NAME], |row| row.get(0)).optional()?;
            Ok(found.unwrap_or_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_store_s_own_unless_a_key_is_shared() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, two) = (Store::open(one.path()).unwrap(), Store::open(two.path()).unwrap());
        let own = one.mac(None, "id", b"value").unwrap();
        assert_eq!(one.mac(None, "id", b"value").unwrap(), own);
        for (id, value) in [("id", "other"), ("i", "dvalue"), ("other", "value")] {
            assert_ne!(one.mac(None, id, value.as_bytes()).unwrap(), own);
        }
        assert_ne!(two.mac(None, "id", b"value").unwrap(), own);
        let shared = one.mac(Some("key"), "id", b"value").unwrap();
        assert_eq!(two.mac(Some("key"), "id", b"value").unwrap(), shared);
        assert_ne!(two.mac(Some("yek"), "id", b"value").unwrap(), shared);
    }
}
