// SPDX-License-Identifier: BSD-2-Clause

//! Requests, key by key: the device that one is about, and the arguments of its command.

use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use crate::device::{Driver, LineRequest, Selector};
use crate::kernel::{Geometry, Kernel};
use crate::name::{Name, Uuid};
use crate::proplib::{Array, Dictionary, Value};
use crate::refusal::Shown;
use crate::units::{Minor, Sector};
use crate::{Errno, Refusal, limits};

/// A request that is being carried out: the dictionary becomes the reply as it goes.
pub(super) struct Request<'a, K: Kernel, D: Dictionary> {
    pub(super) driver: &'a Driver<K>,
    pub(super) dict: &'a mut D,
    /// The request's key `flags`: [`flags`](super::flags).
    pub(super) flags: u32,
    /// `true` if the descriptor that the request came through is open for writing.
    pub(super) writable: bool,
    /// A warning about a command that was carried out all the same.
    pub(super) warning: Option<String>,
}

impl<K: Kernel, D: Dictionary> Request<'_, K, D> {
    pub(super) fn name(&self) -> Result<Option<Name>, Refusal> {
        string(&*self.dict, c"name")?.filter(|s| !s.is_empty()).map(new_name).transpose()
    }

    pub(super) fn uuid(&self) -> Result<Option<Uuid>, Refusal> {
        string(&*self.dict, c"uuid")?.filter(|s| !s.is_empty()).map(new_uuid).transpose()
    }

    pub(super) fn minor(&self) -> Result<Option<u64>, Refusal> {
        Ok(number(&*self.dict, c"minor")?.filter(|minor| *minor != 0))
    }

    /// The minor wins over the name, and the name over the uuid. A name that no device can have
    /// selects none; one that is too long is an error, wherever it stands.
    pub(super) fn selector(&self) -> Result<Selector, Refusal> {
        let given = |key: &CStr, max| match string(&*self.dict, key)? {
            Some(text) if text.len() > max => Err(Errno::EINVAL.because(format_args!(
                "the {} has {} bytes, of {max} at most",
                key.to_str().unwrap_or_default(),
                text.len()
            ))),
            text => Ok(text.filter(|text| !text.is_empty())),
        };
        let (name, uuid) = (given(c"name", Name::MAX)?, given(c"uuid", Uuid::MAX)?);
        let selector = match (self.minor()?, name, uuid) {
            (Some(minor), ..) => Minor::new(minor).map(Selector::Minor),
            (None, Some(name), _) => Name::new(name).ok().map(Selector::Name),
            (None, None, uuid) => uuid.and_then(|uuid| Uuid::new(uuid).ok()).map(Selector::Uuid),
        };
        Ok(selector.unwrap_or(Selector::None))
    }

    pub(super) fn cmd_data(&self) -> Result<D::Array, Refusal> {
        match self.dict.get(c"cmd_data") {
            Some(Value::Array(data)) => Ok(data),
            _ => Err(Errno::EINVAL.because(format_args!("`cmd_data` is not an array"))),
        }
    }

    pub(super) fn lines(&self) -> Result<Vec<LineRequest>, Refusal> {
        let data = self.cmd_data()?;
        if data.len() > limits::LINES {
            return Err(Errno::E2BIG.because(format_args!(
                "too many lines: {}, of {} at most",
                data.len(),
                limits::LINES
            )));
        }
        let line = |at| {
            let malformed = |what: &str| Refusal {
                line: Some(at),
                ..Errno::EINVAL.because(format_args!("the line has no {what}"))
            };
            let Some(Value::Dictionary(line)) = data.get(at) else {
                return Err(malformed("dictionary"));
            };
            let text = |key: &CStr| {
                let text = string(&line, key).ok().flatten().map(String::from);
                text.ok_or_else(|| malformed(key.to_str().unwrap_or_default()))
            };
            let count = |key: &CStr| {
                let count = number(&line, key).ok().flatten();
                count.ok_or_else(|| malformed(key.to_str().unwrap_or_default()))
            };
            Ok(LineRequest {
                start: count(c"start")?,
                length: count(c"length")?,
                kind: text(c"type")?,
                params: text(c"params")?,
            })
        };
        (0..data.len()).map(line).collect()
    }

    /// `cylinders heads sectors start`, as dmsetup(8) sends them.
    pub(super) fn geometry(&self) -> Result<Geometry, Refusal> {
        let wrong = || {
            Errno::EINVAL.because(format_args!(
                "a geometry is four numbers: cylinders up to 65535, heads and sectors up to 255, \
                 and a start not above their product"
            ))
        };
        let text = string(&*self.dict, c"geometry")?.ok_or_else(wrong)?;
        let mut numbers = text.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = |max: u64| match numbers.next() {
            Some(Ok(n)) if n <= max => Ok(n),
            _ => Err(wrong()),
        };
        // The bounds are those of struct disklabel's fields, so that none is cut.
        let (cylinders, heads, sectors) =
            (next(65_535)? as u32, next(255)? as u32, next(255)? as u32);
        let start = Sector(next(Sector::MAX.0)?);
        let whole = u64::from(cylinders) * u64::from(heads) * u64::from(sectors);
        if numbers.next().is_some() || start.0 > whole {
            return Err(wrong());
        }
        Ok(Geometry { cylinders, heads, sectors, start })
    }
}

/// A device's name, or why it cannot be one.
pub(super) fn new_name(text: &str) -> Result<Name, Refusal> {
    Name::new(text).map_err(|errno| {
        let why = match text {
            "" => "a name has a byte at least",
            "control" => "that is the name of the control node",
            "." | ".." => "that is the name of a directory",
            _ if text.contains('/') => "a name has no slash",
            _ => "a name has 127 bytes at most",
        };
        errno.because(format_args!("`{}` cannot be a device's name: {why}", Shown::word(text)))
    })
}

/// A device's uuid, or why it cannot be one.
pub(super) fn new_uuid(text: &str) -> Result<Uuid, Refusal> {
    Uuid::new(text).map_err(|errno| {
        let (bytes, max) = (text.len(), Uuid::MAX);
        errno.because(format_args!("the uuid has {bytes} bytes, and may have 1 to {max}"))
    })
}

/// A key that holds a string, or is not there.
pub(super) fn string<'d, D: Dictionary>(
    dict: &'d D,
    key: &CStr,
) -> Result<Option<&'d str>, Refusal> {
    match dict.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong_type(key, "a string")),
    }
}

fn wrong_type(key: &CStr, kind: &str) -> Refusal {
    Errno::EINVAL.because(format_args!("`{}` is not {kind}", key.to_str().unwrap_or_default()))
}

/// A key that holds a number of 0 or more, or is not there.
pub(super) fn number<D: Dictionary>(dict: &D, key: &CStr) -> Result<Option<u64>, Refusal> {
    match dict.get(key) {
        None => Ok(None),
        Some(Value::Unsigned(n)) => Ok(Some(n)),
        Some(_) => Err(wrong_type(key, "a number of 0 or more")),
    }
}
