// SPDX-License-Identifier: BSD-2-Clause

//! Property lists, as proplib(3) has them: userland's requests and the replies.
//! `sys/netbsd/proplib.rs` implements these traits.
//!
//! The driver reads a value once, at the border, into a type of its own; a value that it cannot
//! read is EINVAL there and nowhere else.

use core::ffi::CStr;

use crate::Errno;

/// The value of a key or of an array element.
pub enum Value<'a, D: Dictionary> {
    /// A string; proplib's are UTF-8, and one that is not reads as [`Value::Other`].
    String(&'a str),
    /// A number of 0 or more.
    Unsigned(u64),
    /// A number below 0.
    Negative(i64),
    /// An array.
    Array(D::Array),
    /// A dictionary.
    Dictionary(D),
    /// A boolean, data, or a string that is none.
    Other,
}

/// A mutable dictionary.
pub trait Dictionary: Sized {
    /// The arrays that a dictionary may hold.
    type Array: Array<Dictionary = Self>;

    /// An empty dictionary.
    ///
    /// # Errors
    /// ENOMEM.
    fn new() -> Result<Self, Errno>;

    /// The value of `key`, if it is there.
    fn get(&self, key: &CStr) -> Option<Value<'_, Self>>;

    /// Sets a number; it externalizes in hexadecimal, as libdevmapper expects of unsigned ones.
    ///
    /// # Errors
    /// ENOMEM, as for all setters.
    fn set_unsigned(&mut self, key: &CStr, value: u64) -> Result<(), Errno>;

    /// Sets a number that externalizes in decimal.
    ///
    /// # Errors
    /// ENOMEM.
    fn set_signed(&mut self, key: &CStr, value: i64) -> Result<(), Errno>;

    /// Sets a string.
    ///
    /// # Errors
    /// ENOMEM.
    fn set_string(&mut self, key: &CStr, value: &str) -> Result<(), Errno>;

    /// Sets an array.
    ///
    /// # Errors
    /// ENOMEM.
    fn set_array(&mut self, key: &CStr, value: Self::Array) -> Result<(), Errno>;
}

/// A mutable array.
pub trait Array: Sized {
    /// The dictionaries that an array may hold.
    type Dictionary: Dictionary<Array = Self>;

    /// An empty array.
    ///
    /// # Errors
    /// ENOMEM.
    fn new() -> Result<Self, Errno>;

    /// The number of elements.
    fn len(&self) -> usize;

    /// `true` if there are no elements.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `index`, if it is there.
    fn get(&self, index: usize) -> Option<Value<'_, Self::Dictionary>>;

    /// Adds a number at the end.
    ///
    /// # Errors
    /// ENOMEM, as for all that add.
    fn push_unsigned(&mut self, value: u64) -> Result<(), Errno>;

    /// Adds a number that externalizes in decimal at the end.
    ///
    /// # Errors
    /// ENOMEM.
    fn push_signed(&mut self, value: i64) -> Result<(), Errno>;

    /// Adds a dictionary at the end.
    ///
    /// # Errors
    /// ENOMEM.
    fn push_dictionary(&mut self, value: Self::Dictionary) -> Result<(), Errno>;
}
