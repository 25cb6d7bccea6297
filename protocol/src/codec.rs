//! Little-endian bytes of small structures: integers as they are, strings and lists behind a u32 count, options behind
//! one byte, enums behind a tag. A [`Reader`] never reads past its input and never allocates more than the input could
//! fill.

use crate::limits::NAME_BYTES_MAX;

/// Why bytes could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ended inside a field.
    #[error("the input ends {missing} bytes too early, in {field}")]
    Short {
        /// What was being read.
        field: &'static str,
        /// How many bytes are missing.
        missing: usize,
    },
    /// Bytes were left over after the last field.
    #[error("{left} bytes are left over after the end")]
    Trailing {
        /// How many bytes.
        left: usize,
    },
    /// A field has a value that it may not have.
    #[error("{field} is {value}, and may be {allowed}")]
    Invalid {
        /// What was being read.
        field: &'static str,
        /// The value found, in words.
        value: String,
        /// The values it may have, in words.
        allowed: String,
    },
}

impl DecodeError {
    /// A field with a value that it may not have.
    pub fn invalid(field: &'static str, value: impl ToString, allowed: impl ToString) -> Self {
        Self::Invalid { field, value: value.to_string(), allowed: allowed.to_string() }
    }
}

/// A cursor over foreign bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Reader<'a> {
    /// Begins at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, total: bytes.len() }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        if n > self.rest.len() {
            return Err(DecodeError::Short { field, missing: n - self.rest.len() });
        }
        let (head, tail) = self.rest.split_at(n);
        self.rest = tail;
        Ok(head)
    }

    /// Skips to the next multiple of `align` from the start; the skipped bytes must be zero.
    pub fn align(&mut self, align: usize) -> Result<(), DecodeError> {
        let pad = self.position().next_multiple_of(align) - self.position();
        if self.take(pad, "padding")?.iter().any(|&b| b != 0) {
            return Err(DecodeError::invalid("padding", "not zero", "zero"));
        }
        Ok(())
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.total - self.rest.len()
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// A count of things of at least `min_bytes` each: refused if the rest of the input could not hold them.
    pub fn count(&mut self, min_bytes: usize, field: &'static str) -> Result<usize, DecodeError> {
        let n = u32::get(self)? as usize;
        let need = n.saturating_mul(min_bytes.max(1));
        if need > self.left() {
            return Err(DecodeError::Short { field, missing: need - self.left() });
        }
        Ok(n)
    }

    /// Fails if anything is left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing { left: self.rest.len() }) }
    }
}

/// A structure with bytes of its own.
pub trait Wire: Sized {
    /// Appends the bytes.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads the bytes back.
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The bytes by themselves.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Reads bytes that hold this structure and nothing else.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let value = Self::get(&mut input)?;
        input.finish()?;
        Ok(value)
    }
}

macro_rules! wire_int {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let bytes = input.take(size_of::<$t>(), stringify!($t))?;
                Ok(<$t>::from_le_bytes(bytes.try_into().expect("take gives the asked length")))
            }
        }
    )*};
}
wire_int!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(input)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::invalid("a truth value", other, "0 or 1")),
        }
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = input.count(1, "a string")?;
        let bytes = input.take(n, "a string")?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => Err(DecodeError::invalid("a string", format!("not UTF-8 at byte {}", e.valid_up_to()), "UTF-8")),
        }
    }
}

impl Wire for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self, out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = input.count(1, "bytes")?;
        Ok(input.take(n, "bytes")?.to_vec())
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.put(out);
            }
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if bool::get(input)? { Some(T::get(input)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::get(input)?, B::get(input)?))
    }
}

/// Appends a u32 length and the bytes.
pub fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    u32::try_from(bytes.len()).expect("no structure comes near 4 GiB: frames are bounded").put(out);
    out.extend_from_slice(bytes);
}

/// Appends a count and the items.
pub fn put_list<T: Wire>(items: &[T], out: &mut Vec<u8>) {
    u32::try_from(items.len()).expect("no list comes near 2^32 items: frames are bounded").put(out);
    items.iter().for_each(|item| item.put(out));
}

/// Reads a count and the items, none of which may be empty on the wire.
pub fn get_list<T: Wire>(input: &mut Reader<'_>, field: &'static str) -> Result<Vec<T>, DecodeError> {
    let n = input.count(1, field)?;
    // Not `with_capacity(n)`: a T may be much larger in memory than its one byte on the wire.
    let mut items = Vec::with_capacity(n.min(1024));
    for _ in 0..n {
        items.push(T::get(input)?);
    }
    Ok(items)
}

/// A name of a project, group, view or feature: 1 to [`NAME_BYTES_MAX`] bytes of a-z, 0-9 and `_`, a letter first.
pub fn check_name(what: &'static str, name: &str) -> Result<(), DecodeError> {
    let fits = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.as_bytes()[0].is_ascii_lowercase()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if fits {
        return Ok(());
    }
    let allowed = format!("1 to {NAME_BYTES_MAX} of a-z, 0-9 and _, a letter first");
    Err(DecodeError::invalid(what, format!("{name:?}"), allowed))
}

/// Implements [`Wire`] for a structure, field by field in the order given.
#[macro_export]
macro_rules! wire_struct {
    ($name:ident { $($field:ident $(: $list:ident)?),* $(,)? }) => {
        impl $crate::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::wire_struct!(@put self.$field, out $(, $list)?);)*
            }
            fn get(input: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                $(let $field = $crate::wire_struct!(@get input, stringify!($field) $(, $list)?);)*
                Ok(Self { $($field),* })
            }
        }
    };
    (@put $value:expr, $out:ident) => { $crate::codec::Wire::put(&$value, $out) };
    (@put $value:expr, $out:ident, list) => { $crate::codec::put_list(&$value, $out) };
    (@get $input:ident, $field:expr) => { $crate::codec::Wire::get($input)? };
    (@get $input:ident, $field:expr, list) => { $crate::codec::get_list($input, $field)? };
}

/// Implements [`Wire`] for an enum: a u8 tag, then the variant's one payload, if it has one.
#[macro_export]
macro_rules! wire_enum {
    ($name:ident { $($tag:literal => $variant:ident $(($payload:ident))?),* $(,)? }) => {
        impl $crate::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $(($payload))? => { out.push($tag); $($crate::codec::Wire::put($payload, out);)? })*
                }
            }
            fn get(input: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                match <u8 as $crate::codec::Wire>::get(input)? {
                    $($tag => Ok(Self::$variant $(({ let $payload = $crate::codec::Wire::get(input)?; $payload }))?),)*
                    other => Err($crate::codec::DecodeError::invalid(
                        concat!("the tag of ", stringify!($name)), other, "a tag that this version knows")),
                }
            }
        }
    };
}
