// SPDX-License-Identifier: BSD-2-Clause

//! prop_array(3), prop_array_util(3)

use std::ffi::{c_char, c_uint, c_void};
use std::sync::Mutex;

use super::{Array, Body, Number, Ref, array, bytes, copy_of, or_null};
use crate::netbsd as nb;

/// prop_array_create(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_create() -> nb::prop_object_t {
    super::fallible(|| Ref::new(Body::Array(Mutex::default())))
}

/// prop_array_create_with_capacity(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_create_with_capacity(capacity: c_uint) -> nb::prop_object_t {
    let items = Vec::with_capacity(capacity as usize);
    Ref::new(Body::Array(Mutex::new(Array { items, ..Array::default() }))).into_raw()
}

/// prop_array_copy(3): shallow, and immutable if the original is.
#[unsafe(no_mangle)]
extern "C" fn prop_array_copy(object: nb::prop_object_t) -> nb::prop_object_t {
    let Some(immutable) = array(object).map(|a| a.immutable) else {
        return std::ptr::null_mut();
    };
    or_null(copy_of(object, immutable))
}

/// prop_array_copy_mutable(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_copy_mutable(object: nb::prop_object_t) -> nb::prop_object_t {
    let is_array = array(object).is_some();
    or_null(copy_of(object, false).filter(|_| is_array))
}

/// prop_array_count(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_count(object: nb::prop_object_t) -> c_uint {
    array(object).map_or(0, |a| a.items.len() as c_uint)
}

/// prop_array_capacity(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_capacity(object: nb::prop_object_t) -> c_uint {
    array(object).map_or(0, |a| a.items.capacity() as c_uint)
}

/// prop_array_ensure_capacity(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_ensure_capacity(object: nb::prop_object_t, capacity: c_uint) -> bool {
    array(object).is_some_and(|mut a| {
        let more = (capacity as usize).saturating_sub(a.items.len());
        a.items.reserve(more);
        true
    })
}

/// prop_array_make_immutable(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_make_immutable(object: nb::prop_object_t) {
    if let Some(mut a) = array(object) {
        a.immutable = true;
    }
}

/// prop_array_mutable(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_mutable(object: nb::prop_object_t) -> bool {
    array(object).is_some_and(|a| !a.immutable)
}

/// prop_array_get(3): no reference for the caller.
#[unsafe(no_mangle)]
extern "C" fn prop_array_get(object: nb::prop_object_t, index: c_uint) -> nb::prop_object_t {
    array(object)
        .and_then(|a| a.items.get(index as usize).map(Ref::as_raw))
        .unwrap_or(std::ptr::null_mut())
}

fn put(object: nb::prop_object_t, index: Option<c_uint>, item: Option<Ref>) -> bool {
    let (Some(mut array), Some(item)) = (array(object), item) else { return false };
    if array.immutable {
        drop(array);
        return false;
    }
    let count = array.items.len();
    let at = index.map_or(count, |i| i as usize);
    let old = match at.cmp(&count) {
        std::cmp::Ordering::Less => Some(std::mem::replace(&mut array.items[at], item)),
        std::cmp::Ordering::Equal => {
            array.items.push(item);
            None
        }
        std::cmp::Ordering::Greater => return false,
    };
    array.version += 1;
    drop(array);
    drop(old);
    true
}

/// prop_array_set(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_set(
    object: nb::prop_object_t,
    index: c_uint,
    item: nb::prop_object_t,
) -> bool {
    put(object, Some(index), Ref::retain(item))
}

/// prop_array_add(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_add(object: nb::prop_object_t, item: nb::prop_object_t) -> bool {
    super::allowed() && put(object, None, Ref::retain(item))
}

/// prop_array_set_and_rel(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_set_and_rel(
    object: nb::prop_object_t,
    index: c_uint,
    item: nb::prop_object_t,
) -> bool {
    put(object, Some(index), Ref::from_raw(item))
}

/// prop_array_add_and_rel(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_add_and_rel(object: nb::prop_object_t, item: nb::prop_object_t) -> bool {
    put(object, None, Ref::from_raw(item))
}

/// prop_array_remove(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_remove(object: nb::prop_object_t, index: c_uint) {
    if let Some(mut a) = array(object)
        && !a.immutable
        && (index as usize) < a.items.len()
    {
        let old = a.items.remove(index as usize);
        a.version += 1;
        drop(a);
        drop(old);
    }
}

macro_rules! numbers {
    ($($get:ident $set:ident $add:ident $value:ident: $type:ty => $variant:ident as $wide:ty;)*) => { $(
        /// prop_array_util(3): false if there is no number there, or it does not fit.
        ///
        /// # Safety
        ///
        /// `value` receives the number.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $get(o: nb::prop_object_t, index: c_uint, value: *mut $type) -> bool {
            unsafe extern "C" {
                fn $value(o: nb::prop_object_t, value: *mut $type) -> bool;
            }
            // SAFETY: the caller's promise.
            unsafe { $value(prop_array_get(o, index), value) }
        }

        /// prop_array_util(3)
        #[unsafe(no_mangle)]
        extern "C" fn $set(o: nb::prop_object_t, index: c_uint, value: $type) -> bool {
            put(o, Some(index), Some(Ref::new(Body::Number(Number::$variant(value as $wide)))))
        }

        /// prop_array_util(3)
        #[unsafe(no_mangle)]
        extern "C" fn $add(o: nb::prop_object_t, value: $type) -> bool {
            put(o, None, Some(Ref::new(Body::Number(Number::$variant(value as $wide)))))
        }
    )* };
}

numbers! {
    prop_array_get_schar prop_array_set_schar prop_array_add_schar prop_number_schar_value: i8 => Signed as i64;
    prop_array_get_short prop_array_set_short prop_array_add_short prop_number_short_value: i16 => Signed as i64;
    prop_array_get_int prop_array_set_int prop_array_add_int prop_number_int_value: i32 => Signed as i64;
    prop_array_get_long prop_array_set_long prop_array_add_long prop_number_long_value: i64 => Signed as i64;
    prop_array_get_longlong prop_array_set_longlong prop_array_add_longlong prop_number_longlong_value: i64 => Signed as i64;
    prop_array_get_int8 prop_array_set_int8 prop_array_add_int8 prop_number_int8_value: i8 => Signed as i64;
    prop_array_get_int16 prop_array_set_int16 prop_array_add_int16 prop_number_int16_value: i16 => Signed as i64;
    prop_array_get_int32 prop_array_set_int32 prop_array_add_int32 prop_number_int32_value: i32 => Signed as i64;
    prop_array_get_int64 prop_array_set_int64 prop_array_add_int64 prop_number_int64_value: i64 => Signed as i64;
    prop_array_get_uchar prop_array_set_uchar prop_array_add_uchar prop_number_uchar_value: u8 => Unsigned as u64;
    prop_array_get_ushort prop_array_set_ushort prop_array_add_ushort prop_number_ushort_value: u16 => Unsigned as u64;
    prop_array_get_uint prop_array_set_uint prop_array_add_uint prop_number_uint_value: u32 => Unsigned as u64;
    prop_array_get_ulong prop_array_set_ulong prop_array_add_ulong prop_number_ulong_value: u64 => Unsigned as u64;
    prop_array_get_ulonglong prop_array_set_ulonglong prop_array_add_ulonglong prop_number_ulonglong_value: u64 => Unsigned as u64;
    prop_array_get_uint8 prop_array_set_uint8 prop_array_add_uint8 prop_number_uint8_value: u8 => Unsigned as u64;
    prop_array_get_uint16 prop_array_set_uint16 prop_array_add_uint16 prop_number_uint16_value: u16 => Unsigned as u64;
    prop_array_get_uint32 prop_array_set_uint32 prop_array_add_uint32 prop_number_uint32_value: u32 => Unsigned as u64;
    prop_array_get_uint64 prop_array_set_uint64 prop_array_add_uint64 prop_number_uint64_value: u64 => Unsigned as u64;
}

/// prop_array_get_bool(3)
///
/// # Safety
///
/// `value` receives the truth.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_array_get_bool(
    o: nb::prop_object_t,
    index: c_uint,
    value: *mut bool,
) -> bool {
    match super::get(prop_array_get(o, index)).map(|o| &o.body) {
        Some(Body::Bool(b)) => {
            // SAFETY: the caller's promise.
            unsafe { *value = *b };
            true
        }
        _ => false,
    }
}

/// prop_array_set_bool(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_set_bool(o: nb::prop_object_t, index: c_uint, value: bool) -> bool {
    put(o, Some(index), Some(Ref::new(Body::Bool(value))))
}

/// prop_array_add_bool(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_add_bool(o: nb::prop_object_t, value: bool) -> bool {
    put(o, None, Some(Ref::new(Body::Bool(value))))
}

macro_rules! get_string {
    ($($name:ident)*) => { $(
        /// prop_array_get_string(3): lives as long as the object.
        ///
        /// # Safety
        ///
        /// `value` receives the string.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            o: nb::prop_object_t,
            index: c_uint,
            value: *mut *const c_char,
        ) -> bool {
            match super::string::string(prop_array_get(o, index)) {
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

get_string!(prop_array_get_string prop_array_get_cstring_nocopy);

macro_rules! set_string {
    ($($set:ident $add:ident)*) => { $(
        /// prop_array_set_string(3)
        ///
        /// # Safety
        ///
        /// `text` is a string.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $set(o: nb::prop_object_t, index: c_uint, text: *const c_char) -> bool {
            put(o, Some(index), Some(Ref::new(Body::String(bytes(text)))))
        }

        /// prop_array_add_string(3)
        ///
        /// # Safety
        ///
        /// `text` is a string.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $add(o: nb::prop_object_t, text: *const c_char) -> bool {
            put(o, None, Some(Ref::new(Body::String(bytes(text)))))
        }
    )* };
}

set_string!(prop_array_set_string prop_array_add_string
    prop_array_set_string_nocopy prop_array_add_string_nocopy
    prop_array_set_cstring prop_array_add_cstring
    prop_array_set_cstring_nocopy prop_array_add_cstring_nocopy);

/// prop_array_get_data(3): lives as long as the object.
///
/// # Safety
///
/// `value` and `size` receive the data.
#[unsafe(no_mangle)]
unsafe extern "C" fn prop_array_get_data(
    o: nb::prop_object_t,
    index: c_uint,
    value: *mut *const c_void,
    size: *mut usize,
) -> bool {
    match super::string::data(prop_array_get(o, index)) {
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
