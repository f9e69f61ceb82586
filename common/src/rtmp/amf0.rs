//! AMF0 with limits. In: payload of commands and data messages. Out: [`Value`]s, and back. Next: [`super::message`].
//!
//! Tolerant where real encoders are odd (dates, long strings, typed objects, strings that are not UTF-8, wrong array counts), strict
//! where memory or stack are at stake: depth, number of values, and no count is believed before its values have been read.
//!
//! Note: FMLE and Wirecast put dates into `connect`; counts of ECMA arrays are often 0 or wrong, and only the end marker tells; property
//! order matters to some servers, so objects are lists here and not maps.

#[cfg(not(test))]
use std::fmt;

use super::limits::{MAX_AMF0_DEPTH, MAX_AMF0_VALUES};

/// An AMF0 value. Outside of tests its `Debug` tells shapes and numbers only, because the strings may be stream keys.
#[derive(Clone, PartialEq)]
#[cfg_attr(test, derive(Debug))]
pub enum Value {
    /// Marker 0x00.
    Number(f64),
    /// Marker 0x01.
    Boolean(bool),
    /// Marker 0x02; bytes that are not UTF-8 are replaced. Written as a long string when longer than 65535 bytes.
    String(String),
    /// Marker 0x03: properties in their order, duplicates kept.
    Object(Vec<(String, Value)>),
    /// Marker 0x05.
    Null,
    /// Marker 0x06.
    Undefined,
    /// Marker 0x07: index of an earlier object; never resolved.
    Reference(u16),
    /// Marker 0x08: as an object. Its count is not kept.
    EcmaArray(Vec<(String, Value)>),
    /// Marker 0x0A.
    StrictArray(Vec<Value>),
    /// Marker 0x0B.
    Date {
        /// Milliseconds since 1970, UTC.
        milliseconds: f64,
        /// Reserved by the specification; some write minutes.
        zone: i16,
    },
    /// Marker 0x0C.
    LongString(String),
    /// Marker 0x0D: something the sender could not write.
    Unsupported,
    /// Marker 0x0F.
    Xml(String),
    /// Marker 0x10.
    TypedObject {
        /// Name of the class.
        class: String,
        /// Properties, as in an object.
        properties: Vec<(String, Value)>,
    },
    /// Marker 0x11: the rest of the message is AMF3, kept as it is.
    Amf3(Vec<u8>),
}

impl Value {
    /// A string value.
    #[must_use]
    pub fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// The text of a string or long string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::LongString(text) => Some(text),
            _ => None,
        }
    }

    /// The number of a number.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The truth of a boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(truth) => Some(*truth),
            _ => None,
        }
    }

    /// Properties of an object, ECMA array or typed object; empty for any other value.
    #[must_use]
    pub fn properties(&self) -> &[(String, Value)] {
        match self {
            Self::Object(properties) | Self::EcmaArray(properties) | Self::TypedObject { properties, .. } => properties,
            _ => &[],
        }
    }

    /// The last property of that name, which is the one that a map would have kept.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Value> {
        self.properties().iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    #[cfg(not(test))]
    fn shape(&self) -> &'static str {
        match self {
            Self::Number(_) => "number",
            Self::Boolean(_) => "boolean",
            Self::String(_) | Self::LongString(_) => "string",
            Self::Object(_) => "object",
            Self::Null => "null",
            Self::Undefined => "undefined",
            Self::Reference(_) => "reference",
            Self::EcmaArray(_) => "ECMA array",
            Self::StrictArray(_) => "strict array",
            Self::Date { .. } => "date",
            Self::Unsupported => "unsupported",
            Self::Xml(_) => "XML",
            Self::TypedObject { .. } => "typed object",
            Self::Amf3(_) => "AMF3",
        }
    }
}

#[cfg(not(test))]
impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Boolean(truth) => write!(formatter, "{truth}"),
            other => formatter.write_str(other.shape()),
        }
    }
}

/// The peer's AMF0 cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Amf0Error {
    /// The message ends inside a value.
    #[error("AMF0 value is cut short")]
    Truncated,
    /// A marker that AMF0 does not have, or reserves (movie clip, record set).
    #[error("AMF0 marker {0:#04x} is not known")]
    Marker(u8),
    /// Nested deeper than [`MAX_AMF0_DEPTH`].
    #[error("AMF0 is nested deeper than {MAX_AMF0_DEPTH}")]
    TooDeep,
    /// More values than [`MAX_AMF0_VALUES`].
    #[error("more than {MAX_AMF0_VALUES} AMF0 values in one message")]
    TooMany,
}

/// Reads one value and returns it with the number of bytes it took.
///
/// # Errors
/// The value is not whole, not AMF0, or beyond a limit.
pub fn read(input: &[u8]) -> Result<(Value, usize), Amf0Error> {
    let mut decoder = Decoder::new(input);
    let value = decoder.value(0)?;
    Ok((value, input.len() - decoder.rest.len()))
}

/// Reads values to the end of the input.
///
/// # Errors
/// See [`read`]; the limit on the number of values is one for all.
pub fn read_all(input: &[u8]) -> Result<Vec<Value>, Amf0Error> {
    let mut decoder = Decoder::new(input);
    let mut values = Vec::new();
    while !decoder.rest.is_empty() {
        values.push(decoder.value(0)?);
    }
    Ok(values)
}

/// The text of a string at the beginning of the input, if there is a whole one, and the bytes it took. Copies nothing.
#[must_use]
pub fn leading_string(input: &[u8]) -> Option<(&[u8], usize)> {
    let (&[marker, high, low], rest) = input.split_first_chunk::<3>()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    (marker == marker::STRING).then_some(())?;
    Some((rest.get(..length)?, 3 + length))
}

mod marker {
    pub(super) const NUMBER: u8 = 0x00;
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const OBJECT: u8 = 0x03;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const UNDEFINED: u8 = 0x06;
    pub(super) const REFERENCE: u8 = 0x07;
    pub(super) const ECMA_ARRAY: u8 = 0x08;
    pub(super) const OBJECT_END: u8 = 0x09;
    pub(super) const STRICT_ARRAY: u8 = 0x0A;
    pub(super) const DATE: u8 = 0x0B;
    pub(super) const LONG_STRING: u8 = 0x0C;
    pub(super) const UNSUPPORTED: u8 = 0x0D;
    pub(super) const XML: u8 = 0x0F;
    pub(super) const TYPED_OBJECT: u8 = 0x10;
    pub(super) const AMF3: u8 = 0x11;
}

struct Decoder<'a> {
    rest: &'a [u8],
    values_left: usize,
}

impl<'a> Decoder<'a> {
    const fn new(input: &'a [u8]) -> Self {
        Self { rest: input, values_left: MAX_AMF0_VALUES }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Amf0Error> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Amf0Error::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Amf0Error> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Amf0Error::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn text(&mut self, length: usize) -> Result<String, Amf0Error> {
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn short_text(&mut self) -> Result<String, Amf0Error> {
        let length = u16::from_be_bytes(self.array()?);
        self.text(usize::from(length))
    }

    fn long_text(&mut self) -> Result<String, Amf0Error> {
        let length = u32::from_be_bytes(self.array()?);
        self.text(length as usize)
    }

    /// Reads a value; `depth` is the number of objects and arrays around it.
    fn value(&mut self, depth: usize) -> Result<Value, Amf0Error> {
        self.values_left = self.values_left.checked_sub(1).ok_or(Amf0Error::TooMany)?;
        let [marker] = self.array()?;
        Ok(match marker {
            marker::NUMBER => Value::Number(f64::from_be_bytes(self.array()?)),
            marker::BOOLEAN => Value::Boolean(self.array::<1>()? != [0]),
            marker::STRING => Value::String(self.short_text()?),
            marker::OBJECT => Value::Object(self.object(depth)?),
            marker::NULL => Value::Null,
            marker::UNDEFINED => Value::Undefined,
            marker::REFERENCE => Value::Reference(u16::from_be_bytes(self.array()?)),
            marker::ECMA_ARRAY => {
                self.array::<4>()?;
                Value::EcmaArray(self.object(depth)?)
            }
            marker::STRICT_ARRAY => Value::StrictArray(self.strict_array(depth)?),
            marker::DATE => {
                Value::Date { milliseconds: f64::from_be_bytes(self.array()?), zone: i16::from_be_bytes(self.array()?) }
            }
            marker::LONG_STRING => Value::LongString(self.long_text()?),
            marker::UNSUPPORTED => Value::Unsupported,
            marker::XML => Value::Xml(self.long_text()?),
            marker::TYPED_OBJECT => Value::TypedObject { class: self.short_text()?, properties: self.object(depth)? },
            marker::AMF3 => Value::Amf3(std::mem::take(&mut self.rest).to_vec()),
            other => return Err(Amf0Error::Marker(other)),
        })
    }

    /// Properties up to the end marker, which follows an empty name.
    fn object(&mut self, depth: usize) -> Result<Vec<(String, Value)>, Amf0Error> {
        if depth >= MAX_AMF0_DEPTH {
            return Err(Amf0Error::TooDeep);
        }
        let mut properties = Vec::new();
        loop {
            let name = self.short_text()?;
            if name.is_empty() && self.rest.first() == Some(&marker::OBJECT_END) {
                self.take(1)?;
                return Ok(properties);
            }
            properties.push((name, self.value(depth + 1)?));
        }
    }

    fn strict_array(&mut self, depth: usize) -> Result<Vec<Value>, Amf0Error> {
        if depth >= MAX_AMF0_DEPTH {
            return Err(Amf0Error::TooDeep);
        }
        let count = u32::from_be_bytes(self.array()?) as usize;
        // Every value takes at least a byte: an impossible count is refused before anything is kept.
        if count > self.rest.len() {
            return Err(Amf0Error::Truncated);
        }
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(depth + 1)?);
        }
        Ok(values)
    }
}

/// Appends one value. Property and class names are cut at 65535 bytes.
pub fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) => {
            out.push(marker::NUMBER);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Value::Boolean(truth) => out.extend_from_slice(&[marker::BOOLEAN, u8::from(*truth)]),
        Value::String(text) if text.len() <= usize::from(u16::MAX) => {
            out.push(marker::STRING);
            write_short(out, text);
        }
        Value::String(text) | Value::LongString(text) => write_long(out, marker::LONG_STRING, text),
        Value::Object(properties) => {
            out.push(marker::OBJECT);
            write_properties(out, properties);
        }
        Value::Null => out.push(marker::NULL),
        Value::Undefined => out.push(marker::UNDEFINED),
        Value::Reference(index) => {
            out.push(marker::REFERENCE);
            out.extend_from_slice(&index.to_be_bytes());
        }
        Value::EcmaArray(properties) => {
            out.push(marker::ECMA_ARRAY);
            out.extend_from_slice(&count(properties.len()));
            write_properties(out, properties);
        }
        Value::StrictArray(values) => {
            out.push(marker::STRICT_ARRAY);
            out.extend_from_slice(&count(values.len()));
            values.iter().for_each(|value| write(out, value));
        }
        Value::Date { milliseconds, zone } => {
            out.push(marker::DATE);
            out.extend_from_slice(&milliseconds.to_be_bytes());
            out.extend_from_slice(&zone.to_be_bytes());
        }
        Value::Unsupported => out.push(marker::UNSUPPORTED),
        Value::Xml(text) => write_long(out, marker::XML, text),
        Value::TypedObject { class, properties } => {
            out.push(marker::TYPED_OBJECT);
            write_short(out, class);
            write_properties(out, properties);
        }
        Value::Amf3(bytes) => {
            out.push(marker::AMF3);
            out.extend_from_slice(bytes);
        }
    }
}

fn write_properties(out: &mut Vec<u8>, properties: &[(String, Value)]) {
    for (name, value) in properties {
        write_short(out, name);
        write(out, value);
    }
    out.extend_from_slice(&[0, 0, marker::OBJECT_END]);
}

fn write_short(out: &mut Vec<u8>, text: &str) {
    let text = cut(text, usize::from(u16::MAX));
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn write_long(out: &mut Vec<u8>, marker: u8, text: &str) {
    let text = cut(text, u32::MAX as usize);
    out.push(marker);
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The longest beginning of at most `limit` bytes that is still text.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn count(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
#[path = "amf0_tests.rs"]
mod tests;
