// SPDX-License-Identifier: BSD-2-Clause

//! prop_dictionary(3), prop_dictionary_util(3)

use std::ffi::{c_char, c_uint, c_void};
use std::sync::Mutex;

use super::{
    Array, Body, Dictionary, Number, Object, Ref, bytes, copy_of, dictionary, get, or_null,
};
use crate::netbsd as nb;

/// PDK_MAXKEY: bytes that a key may have.
pub(super) const MAXKEY: usize = 128;

impl Dictionary {
    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|(k, _)| k.key().cmp(key))
    }

    /// Sets a key; fails if it is too long. The answer is the old value, to be dropped without the lock.
    pub(super) fn set(&mut self, key: &[u8], value: Ref) -> Result<Option<Ref>, ()> {
        if key.len() > MAXKEY {
            return Err(());
        }
        match self.find(key) {
            Ok(at) => Ok(Some(std::mem::replace(&mut self.entries[at].1, value))),
            Err(at) => {
                let mut text = key.to_vec();
                text.push(0);
                self.entries.insert(at, (Ref::new(Body::Keysym(text)), value));
                self.version += 1;
                Ok(None)
            }
        }
    }
}

fn key<'a>(key: *const c_char) -> &'a [u8] {
    // SAFETY: callers pass a string that lives through the call.
    unsafe { std::ffi::CStr::from_ptr(key) }.to_bytes()
}

fn find(o: nb::prop_object_t, wanted: &[u8]) -> nb::prop_object_t {
    dictionary(o)
        .and_then(|d| d.find(wanted).ok().map(|at| d.entries[at].1.as_raw()))
        .unwrap_or(std::ptr::null_mut())
}

fn put(o: nb::prop_object_t, wanted: &[u8], value: Option<Ref>) -> bool {
    let (Some(mut d), Some(value)) = (dictionary(o), value) else { return false };
    if d.immutable {
        drop(d);
        return false;
    }
    let old = d.set(wanted, value);
    drop(d);
    old.is_ok()
}

fn remove(o: nb::prop_object_t, wanted: &[u8]) {
    let Some(mut d) = dictionary(o) else { return };
    if d.immutable {
        return;
    }
    if let Ok(at) = d.find(wanted) {
        let old = d.entries.remove(at);
        d.version += 1;
        drop(d);
        drop(old);
    }
}

fn keysym<'a>(o: nb::prop_object_t) -> Option<&'a [u8]> {
    match get(o)? {
        Object { body: Body::Keysym(k), .. } => Some(k),
        _ => None,
    }
}

/// prop_dictionary_create(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_create() -> nb::prop_object_t {
    super::fallible(|| Ref::new(Body::Dictionary(Mutex::default())))
}

/// prop_dictionary_create_with_capacity(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_create_with_capacity(_capacity: c_uint) -> nb::prop_object_t {
    super::dictionary_create().cast()
}

/// prop_dictionary_copy(3): shallow, and immutable if the original is.
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_copy(o: nb::prop_object_t) -> nb::prop_object_t {
    let Some(immutable) = dictionary(o).map(|d| d.immutable) else {
        return std::ptr::null_mut();
    };
    or_null(copy_of(o, immutable))
}

/// prop_dictionary_copy_mutable(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_copy_mutable(o: nb::prop_object_t) -> nb::prop_object_t {
    let is_dictionary = dictionary(o).is_some();
    or_null(copy_of(o, false).filter(|_| is_dictionary))
}

/// prop_dictionary_count(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_count(o: nb::prop_object_t) -> c_uint {
    dictionary(o).map_or(0, |d| d.entries.len() as c_uint)
}

/// prop_dictionary_ensure_capacity(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_ensure_capacity(o: nb::prop_object_t, _capacity: c_uint) -> bool {
    dictionary(o).is_some()
}

/// prop_dictionary_make_immutable(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_make_immutable(o: nb::prop_object_t) {
    if let Some(mut d) = dictionary(o) {
        d.immutable = true;
    }
}

/// prop_dictionary_mutable(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_mutable(o: nb::prop_object_t) -> bool {
    dictionary(o).is_some_and(|d| !d.immutable)
}

/// prop_dictionary_all_keys(3): an array of keysyms.
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_all_keys(o: nb::prop_object_t) -> nb::prop_object_t {
    let Some(d) = dictionary(o) else { return std::ptr::null_mut() };
    let items = d.entries.iter().map(|(k, _)| k.clone()).collect();
    Ref::new(Body::Array(Mutex::new(Array { items, ..Array::default() }))).into_raw()
}

/// prop_dictionary_get(3): no reference for the caller.
///
/// # Safety
///
/// `k` is a string, here and below.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_dictionary_get(
    o: nb::prop_object_t,
    k: *const c_char,
) -> nb::prop_object_t {
    find(o, key(k))
}

/// prop_dictionary_set(3)
///
/// # Safety
///
/// As prop_dictionary_get.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_dictionary_set(
    o: nb::prop_object_t,
    k: *const c_char,
    value: nb::prop_object_t,
) -> bool {
    super::allowed() && put(o, key(k), Ref::retain(value))
}

/// prop_dictionary_set_and_rel(3)
///
/// # Safety
///
/// As prop_dictionary_get.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_dictionary_set_and_rel(
    o: nb::prop_object_t,
    k: *const c_char,
    value: nb::prop_object_t,
) -> bool {
    put(o, key(k), Ref::from_raw(value))
}

/// prop_dictionary_remove(3)
///
/// # Safety
///
/// As prop_dictionary_get.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_dictionary_remove(o: nb::prop_object_t, k: *const c_char) {
    remove(o, key(k));
}

/// prop_dictionary_get_keysym(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_get_keysym(
    o: nb::prop_object_t,
    k: nb::prop_object_t,
) -> nb::prop_object_t {
    keysym(k).map_or(std::ptr::null_mut(), |k| find(o, &k[..k.len() - 1]))
}

/// prop_dictionary_set_keysym(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_set_keysym(
    o: nb::prop_object_t,
    k: nb::prop_object_t,
    value: nb::prop_object_t,
) -> bool {
    keysym(k).is_some_and(|k| put(o, &k[..k.len() - 1], Ref::retain(value)))
}

/// prop_dictionary_remove_keysym(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_remove_keysym(o: nb::prop_object_t, k: nb::prop_object_t) {
    if let Some(k) = keysym(k) {
        remove(o, &k[..k.len() - 1]);
    }
}

macro_rules! keysym_value {
    ($($name:ident)*) => { $(
        /// prop_dictionary_keysym_value(3): lives as long as the keysym.
        #[unsafe(no_mangle)]
        extern "C" fn $name(k: nb::prop_object_t) -> *const c_char {
            keysym(k).map_or(std::ptr::null(), |k| k.as_ptr().cast())
        }
    )* };
}

keysym_value!(prop_dictionary_keysym_value prop_dictionary_keysym_cstring_nocopy);

/// prop_dictionary_get_dict(3)
///
/// # Safety
///
/// `value` receives the dictionary.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_dictionary_get_dict(
    o: nb::prop_object_t,
    k: *const c_char,
    value: *mut nb::prop_object_t,
) -> bool {
    let found = find(o, key(k));
    if dictionary(found).is_none() {
        return false;
    }
    // SAFETY: the caller's promise.
    unsafe { *value = found };
    true
}

macro_rules! numbers {
    ($($get:ident $set:ident $value:ident: $type:ty => $variant:ident as $wide:ty;)*) => { $(
        /// prop_dictionary_util(3): false if there is no number of that key, or it does not fit.
        ///
        /// # Safety
        ///
        /// `k` is a string; `value` receives the number.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $get(
            o: nb::prop_object_t,
            k: *const c_char,
            value: *mut $type,
        ) -> bool {
            unsafe extern "C" {
                fn $value(o: nb::prop_object_t, value: *mut $type) -> bool;
            }
            // SAFETY: the caller's promise.
            unsafe { $value(find(o, key(k)), value) }
        }

        /// prop_dictionary_util(3)
        ///
        /// # Safety
        ///
        /// `k` is a string.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $set(o: nb::prop_object_t, k: *const c_char, value: $type) -> bool {
            put(o, key(k), Some(Ref::new(Body::Number(Number::$variant(value as $wide)))))
        }
    )* };
}

numbers! {
    prop_dictionary_get_schar prop_dictionary_set_schar prop_number_schar_value: i8 => Signed as i64;
    prop_dictionary_get_short prop_dictionary_set_short prop_number_short_value: i16 => Signed as i64;
    prop_dictionary_get_int prop_dictionary_set_int prop_number_int_value: i32 => Signed as i64;
    prop_dictionary_get_long prop_dictionary_set_long prop_number_long_value: i64 => Signed as i64;
    prop_dictionary_get_longlong prop_dictionary_set_longlong prop_number_longlong_value: i64 => Signed as i64;
    prop_dictionary_get_int8 prop_dictionary_set_int8 prop_number_int8_value: i8 => Signed as i64;
    prop_dictionary_get_int16 prop_dictionary_set_int16 prop_number_int16_value: i16 => Signed as i64;
    prop_dictionary_get_int32 prop_dictionary_set_int32 prop_number_int32_value: i32 => Signed as i64;
    prop_dictionary_get_int64 prop_dictionary_set_int64 prop_number_int64_value: i64 => Signed as i64;
    prop_dictionary_get_uchar prop_dictionary_set_uchar prop_number_uchar_value: u8 => Unsigned as u64;
    prop_dictionary_get_ushort prop_dictionary_set_ushort prop_number_ushort_value: u16 => Unsigned as u64;
    prop_dictionary_get_uint prop_dictionary_set_uint prop_number_uint_value: u32 => Unsigned as u64;
    prop_dictionary_get_ulong prop_dictionary_set_ulong prop_number_ulong_value: u64 => Unsigned as u64;
    prop_dictionary_get_ulonglong prop_dictionary_set_ulonglong prop_number_ulonglong_value: u64 => Unsigned as u64;
    prop_dictionary_get_uint8 prop_dictionary_set_uint8 prop_number_uint8_value: u8 => Unsigned as u64;
    prop_dictionary_get_uint16 prop_dictionary_set_uint16 prop_number_uint16_value: u16 => Unsigned as u64;
    prop_dictionary_get_uint32 prop_dictionary_set_uint32 prop_number_uint32_value: u32 => Unsigned as u64;
    prop_dictionary_get_uint64 prop_dictionary_set_uint64 prop_number_uint64_value: u64 => Unsigned as u64;
}

/// prop_dictionary_get_bool(3)
///
/// # Safety
///
/// `value` receives the truth.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_dictionary_get_bool(
    o: nb::prop_object_t,
    k: *const c_char,
    value: *mut bool,
) -> bool {
    match get(find(o, key(k))).map(|o| &o.body) {
        Some(Body::Bool(b)) => {
            // SAFETY: the caller's promise.
            unsafe { *value = *b };
            true
        }
        _ => false,
    }
}

/// prop_dictionary_set_bool(3)
///
/// # Safety
///
/// As prop_dictionary_get.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_dictionary_set_bool(
    o: nb::prop_object_t,
    k: *const c_char,
    value: bool,
) -> bool {
    put(o, key(k), Some(Ref::new(Body::Bool(value))))
}

macro_rules! get_string {
    ($($name:ident)*) => { $(
        /// prop_dictionary_get_string(3): lives as long as the object.
        ///
        /// # Safety
        ///
        /// `k` is a string; `value` receives the string.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            o: nb::prop_object_t,
            k: *const c_char,
            value: *mut *const c_char,
        ) -> bool {
            match super::string::string(find(o, key(k))) {
                Some(s) => {
                    // SAFETY: the caller's promise.
                    unsafe { *value = s.as_ptr().cast() };
                    true
                }
                None => false,
            }
        }
    )* };
}

get_string!(prop_dictionary_get_string prop_dictionary_get_cstring_nocopy);

macro_rules! set_string {
    ($($name:ident)*) => { $(
        /// prop_dictionary_set_string(3). The text is copied also where NetBSD would refer to it.
        ///
        /// # Safety
        ///
        /// `k` and `text` are strings.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            o: nb::prop_object_t,
            k: *const c_char,
            text: *const c_char,
        ) -> bool {
            put(o, key(k), Some(Ref::new(Body::String(bytes(text)))))
        }
    )* };
}

set_string!(prop_dictionary_set_string prop_dictionary_set_string_nocopy
    prop_dictionary_set_cstring prop_dictionary_set_cstring_nocopy);

/// prop_dictionary_get_data(3): lives as long as the object.
///
/// # Safety
///
/// `k` is a string; `value` and `size` receive the data.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_dictionary_get_data(
    o: nb::prop_object_t,
    k: *const c_char,
    value: *mut *const c_void,
    size: *mut usize,
) -> bool {
    match super::string::data(find(o, key(k))) {
        Some(d) => {
            // SAFETY: the caller's promise.
            unsafe {
                *value = d.as_ptr().cast();
                *size = d.len();
            }
            true
        }
        None => false,
    }
}

/// prop_dictionary_set_data(3)
///
/// # Safety
///
/// `k` is a string; `from` has `size` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_dictionary_set_data(
    o: nb::prop_object_t,
    k: *const c_char,
    from: *const c_void,
    size: usize,
) -> bool {
    let bytes = if size == 0 {
        Vec::new()
    } else {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(from.cast::<u8>(), size) }.to_vec()
    };
    put(o, key(k), Some(Ref::new(Body::Data(bytes))))
}
