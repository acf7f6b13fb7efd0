//! JSON from strangers and JSON that is hashed.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ImageError;
use crate::limits;

/// Parses a document of at most [`limits::DOCUMENT`] bytes. The parser itself stops at a depth of
/// 128, so no document can exhaust the stack.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], document: &str) -> Result<T, ImageError> {
    if bytes.len() as u64 > limits::DOCUMENT {
        let problem = format!("more than {} bytes", limits::DOCUMENT);
        return Err(ImageError::document(document, problem));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        // The parser quotes strangers' text; keep what a line of a terminal holds.
        let problem: String = error.to_string().chars().take(200).collect();
        ImageError::document(document, problem)
    })
}

/// Writes a document in the one form that is hashed: no spaces, fields in the order of their
/// structs, maps by key.
pub(crate) fn bytes<T: Serialize>(value: &T, document: &str) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|error| ImageError::document(document, error.to_string()))
}
