// SPDX-License-Identifier: BSD-2-Clause

//! prop_string(3), prop_data(3)

use std::ffi::{c_char, c_void};

use super::{Body, Object, Ref, bytes, get, or_null};
use crate::netbsd as nb;

/// The string's bytes with their NUL.
pub(super) fn string<'a>(object: nb::prop_object_t) -> Option<&'a [u8]> {
    match get(object)? {
        Object { body: Body::String(s), .. } => Some(s),
        _ => None,
    }
}

pub(super) fn data<'a>(object: nb::prop_object_t) -> Option<&'a [u8]> {
    match get(object)? {
        Object { body: Body::Data(d), .. } => Some(d),
        _ => None,
    }
}

/// A copy of a string, allocated with malloc(9).
fn malloced(bytes: &[u8]) -> *mut u8 {
    // SAFETY: the block has that size, at least one byte.
    unsafe {
        let at = libc::malloc(bytes.len().max(1)).cast::<u8>();
        if !at.is_null() {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        }
        at
    }
}

/// Copies a value to where its reader has room; false if there is none, or it does not fit.
///
/// # Safety
///
/// `to` has `size` bytes.
unsafe fn copy_value(value: Option<&[u8]>, to: *mut c_void, size: usize) -> bool {
    let Some(value) = value.filter(|value| value.len() <= size) else { return false };
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), to.cast(), value.len()) };
    true
}

macro_rules! create {
    ($($name:ident)*) => { $(
        /// prop_string_create(3). The text is copied also where NetBSD would refer to it.
        ///
        /// # Safety
        ///
        /// `text` is a string.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(text: *const c_char) -> nb::prop_object_t {
            super::fallible(|| Ref::new(Body::String(bytes(text))))
        }
    )* };
}

create!(prop_string_create_copy prop_string_create_nocopy prop_string_create_cstring
    prop_string_create_cstring_nocopy);

/// prop_string_create(3): an empty string.
#[unsafe(no_mangle)]
extern "C" fn prop_string_create() -> nb::prop_object_t {
    Ref::new(Body::String(vec![0])).into_raw()
}

/// prop_string_copy(3)
#[unsafe(no_mangle)]
extern "C" fn prop_string_copy(object: nb::prop_object_t) -> nb::prop_object_t {
    or_null(string(object).map(|s| Ref::new(Body::String(s.to_vec()))))
}

/// prop_string_size(3): without the NUL.
#[unsafe(no_mangle)]
extern "C" fn prop_string_size(object: nb::prop_object_t) -> usize {
    string(object).map_or(0, |s| s.len() - 1)
}

macro_rules! value {
    ($($name:ident)*) => { $(
        /// prop_string_value(3): lives as long as the object; null for what is no string.
        #[unsafe(no_mangle)]
        extern "C" fn $name(object: nb::prop_object_t) -> *const c_char {
            string(object).map_or(std::ptr::null(), |s| s.as_ptr().cast())
        }
    )* };
}

value!(prop_string_value prop_string_cstring_nocopy);

/// prop_string_cstring(3): the caller frees the copy.
#[unsafe(no_mangle)]
extern "C" fn prop_string_cstring(object: nb::prop_object_t) -> *mut c_char {
    string(object).map_or(std::ptr::null_mut(), |s| malloced(s).cast())
}

/// prop_string_copy_value(3): false if the text does not fit.
///
/// # Safety
///
/// `to` has `size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_string_copy_value(
    object: nb::prop_object_t,
    to: *mut c_void,
    size: usize,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe { copy_value(string(object), to, size) }
}

macro_rules! equals_string {
    ($($name:ident)*) => { $(
        /// prop_string_equals_string(3)
        ///
        /// # Safety
        ///
        /// `text` is a string.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(object: nb::prop_object_t, text: *const c_char) -> bool {
            string(object).is_some_and(|s| s == bytes(text))
        }
    )* };
}

equals_string!(prop_string_equals_string prop_string_equals_cstring);

macro_rules! create_data {
    ($($name:ident)*) => { $(
        /// prop_data_create(3). The data are copied also where NetBSD would refer to them.
        ///
        /// # Safety
        ///
        /// `from` has `size` bytes.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(from: *const c_void, size: usize) -> nb::prop_object_t {
            let bytes = if size == 0 {
                Vec::new()
            } else {
                // SAFETY: the caller's promise.
                unsafe { std::slice::from_raw_parts(from.cast::<u8>(), size) }.to_vec()
            };
            Ref::new(Body::Data(bytes)).into_raw()
        }
    )* };
}

create_data!(prop_data_create_copy prop_data_create_nocopy prop_data_create_data
    prop_data_create_data_nocopy);

/// prop_data_copy(3)
#[unsafe(no_mangle)]
extern "C" fn prop_data_copy(object: nb::prop_object_t) -> nb::prop_object_t {
    or_null(data(object).map(|d| Ref::new(Body::Data(d.to_vec()))))
}

/// prop_data_size(3)
#[unsafe(no_mangle)]
extern "C" fn prop_data_size(object: nb::prop_object_t) -> usize {
    data(object).map_or(0, <[u8]>::len)
}

macro_rules! data_value {
    ($($name:ident)*) => { $(
        /// prop_data_value(3): lives as long as the object.
        #[unsafe(no_mangle)]
        extern "C" fn $name(object: nb::prop_object_t) -> *const c_void {
            data(object).map_or(std::ptr::null(), |d| d.as_ptr().cast())
        }
    )* };
}

data_value!(prop_data_value prop_data_data_nocopy);

/// prop_data_data(3): the caller frees the copy.
#[unsafe(no_mangle)]
extern "C" fn prop_data_data(object: nb::prop_object_t) -> *mut c_void {
    data(object).map_or(std::ptr::null_mut(), |d| malloced(d).cast())
}

/// prop_data_copy_value(3): false if the data do not fit.
///
/// # Safety
///
/// `to` has `size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_data_copy_value(
    object: nb::prop_object_t,
    to: *mut c_void,
    size: usize,
) -> bool {
    // SAFETY: the caller's promise.
    unsafe { copy_value(data(object), to, size) }
}
