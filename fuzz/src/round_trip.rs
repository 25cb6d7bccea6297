//! What holds of every structure that is read from foreign bytes.

use std::fmt::Debug;

use stoa_protocol::{DecodeError, Wire};

/// A structure of one form: bytes that are taken are the bytes that it is written with.
pub fn canonical<T: Wire + Debug>(bytes: &[u8]) -> Option<T> {
    let value = taken(T::from_bytes(bytes))?;
    assert_eq!(value.to_bytes(), bytes, "{value:?} has two forms");
    Some(value)
}

/// A structure of more forms than one: what is taken is written in one that is taken for the same.
pub fn stable<T: Wire + Debug + PartialEq>(bytes: &[u8]) -> Option<T> {
    let value = taken(T::from_bytes(bytes))?;
    let written = value.to_bytes();
    let again = T::from_bytes(&written);
    assert_eq!(again.as_ref(), Ok(&value), "what was written is not what was read");
    Some(value)
}

/// What was decoded, if it was. A refusal can be put into words: they are logged and sent.
pub fn taken<T>(decoded: Result<T, DecodeError>) -> Option<T> {
    decoded.inspect_err(|error| assert!(!error.to_string().is_empty())).ok()
}
