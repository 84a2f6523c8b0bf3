// SPDX-License-Identifier: BSD-2-Clause

//! prop_number(3)

use super::{Body, Number, Object, Ref, get, or_null};
use crate::netbsd as nb;

impl Number {
    pub(crate) fn as_i64(self) -> Option<i64> {
        match self {
            Number::Signed(v) => Some(v),
            Number::Unsigned(v) => v.try_into().ok(),
        }
    }

    pub(crate) fn as_u64(self) -> Option<u64> {
        match self {
            Number::Signed(v) => v.try_into().ok(),
            Number::Unsigned(v) => Some(v),
        }
    }

    pub(super) fn equals(self, other: Number) -> bool {
        match (self.as_u64(), other.as_u64()) {
            (Some(a), Some(b)) => a == b,
            (None, None) => self.as_i64() == other.as_i64(),
            _ => false,
        }
    }

    /// The number's 64 bits, with or without a sign.
    fn bits(self) -> u64 {
        match self {
            Number::Signed(v) => v as u64,
            Number::Unsigned(v) => v,
        }
    }
}

pub(super) fn number(object: nb::prop_object_t) -> Option<Number> {
    match get(object)? {
        Object { body: Body::Number(n), .. } => Some(*n),
        _ => None,
    }
}

macro_rules! create {
    ($($name:ident: $type:ty => $variant:ident;)*) => { $(
        /// prop_number_create(3)
        #[unsafe(no_mangle)]
        extern "C" fn $name(value: $type) -> nb::prop_object_t {
            super::fallible(|| Ref::new(Body::Number(Number::$variant(value))))
        }
    )* };
}

create! {
    prop_number_create_signed: i64 => Signed;
    prop_number_create_integer: i64 => Signed;
    prop_number_create_unsigned: u64 => Unsigned;
    prop_number_create_unsigned_integer: u64 => Unsigned;
}

macro_rules! value {
    ($($name:ident: $type:ty;)*) => { $(
        /// prop_number_value(3): the value as it is, cut to 64 bits; 0 for what is no number.
        #[unsafe(no_mangle)]
        extern "C" fn $name(object: nb::prop_object_t) -> $type {
            number(object).map_or(0, |n| n.bits() as $type)
        }
    )* };
}

value! {
    prop_number_signed_value: i64;
    prop_number_integer_value: i64;
    prop_number_unsigned_value: u64;
    prop_number_unsigned_integer_value: u64;
}

macro_rules! bounded {
    ($($name:ident: $type:ty;)*) => { $(
        /// prop_number_value(3): false if the value does not fit.
        ///
        /// # Safety
        ///
        /// `value` receives the number.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(object: nb::prop_object_t, value: *mut $type) -> bool {
            let number = number(object);
            let fits = number.and_then(|n| match n {
                Number::Signed(v) => <$type>::try_from(v).ok(),
                Number::Unsigned(v) => <$type>::try_from(v).ok(),
            });
            match fits {
                Some(v) => {
                    // SAFETY: the caller's promise.
                    unsafe { *value = v };
                    true
                }
                None => false,
            }
        }
    )* };
}

bounded! {
    prop_number_schar_value: i8;
    prop_number_short_value: i16;
    prop_number_int_value: i32;
    prop_number_long_value: i64;
    prop_number_longlong_value: i64;
    prop_number_intptr_value: i64;
    prop_number_int8_value: i8;
    prop_number_int16_value: i16;
    prop_number_int32_value: i32;
    prop_number_int64_value: i64;
    prop_number_uchar_value: u8;
    prop_number_ushort_value: u16;
    prop_number_uint_value: u32;
    prop_number_ulong_value: u64;
    prop_number_ulonglong_value: u64;
    prop_number_uintptr_value: u64;
    prop_number_uint8_value: u8;
    prop_number_uint16_value: u16;
    prop_number_uint32_value: u32;
    prop_number_uint64_value: u64;
}

/// prop_number_unsigned(3)
#[unsafe(no_mangle)]
extern "C" fn prop_number_unsigned(object: nb::prop_object_t) -> bool {
    matches!(number(object), Some(Number::Unsigned(_)))
}

/// prop_number_size(3): bits that the value needs, 8, 16, 32 or 64.
#[unsafe(no_mangle)]
extern "C" fn prop_number_size(object: nb::prop_object_t) -> i32 {
    match number(object) {
        None => 0,
        Some(Number::Unsigned(v)) => match v {
            0..=0xff => 8,
            0x100..=0xffff => 16,
            0x1_0000..=0xffff_ffff => 32,
            _ => 64,
        },
        Some(Number::Signed(v)) => {
            if i8::try_from(v).is_ok() {
                8
            } else if i16::try_from(v).is_ok() {
                16
            } else if i32::try_from(v).is_ok() {
                32
            } else {
                64
            }
        }
    }
}

/// prop_number_copy(3)
#[unsafe(no_mangle)]
extern "C" fn prop_number_copy(object: nb::prop_object_t) -> nb::prop_object_t {
    or_null(number(object).map(|n| Ref::new(Body::Number(n))))
}

macro_rules! equals_value {
    ($($name:ident: $type:ty => $variant:ident;)*) => { $(
        /// prop_number_equals(3)
        #[unsafe(no_mangle)]
        extern "C" fn $name(object: nb::prop_object_t, value: $type) -> bool {
            number(object).is_some_and(|n| n.equals(Number::$variant(value)))
        }
    )* };
}

equals_value! {
    prop_number_equals_signed: i64 => Signed;
    prop_number_equals_integer: i64 => Signed;
    prop_number_equals_unsigned: u64 => Unsigned;
    prop_number_equals_unsigned_integer: u64 => Unsigned;
}
