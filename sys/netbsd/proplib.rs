// SPDX-License-Identifier: BSD-2-Clause

//! proplib(3): the traits of `dm/proplib.rs` on property lists of the kernel.

use alloc::ffi::CString;
use core::ffi::{CStr, c_uint, c_ulong, c_void};
use core::ptr::NonNull;

use dm_core::Errno;
use dm_core::proplib::{self, Value};

use super::sys;

/// A reference to an object of proplib.
///
/// # Invariants
/// One reference count is this value's.
struct Object(NonNull<c_void>);

// SAFETY: proplib counts references atomically and locks its containers.
unsafe impl Send for Object {}

impl Object {
    /// Takes over a reference that proplib's `create` functions gave.
    fn own(raw: *mut c_void) -> Result<Object, Errno> {
        NonNull::new(raw).map(Object).ok_or(Errno::ENOMEM)
    }

    /// Adds a reference to one that a container holds.
    ///
    /// # Safety
    /// `raw` is an object that lives now.
    unsafe fn share(raw: NonNull<c_void>) -> Object {
        // SAFETY: the caller's promise.
        unsafe { sys::prop_object_retain(raw.as_ptr()) };
        Object(raw)
    }

    fn raw<T>(&self) -> *mut T {
        self.0.as_ptr().cast()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: the reference is ours (invariant) and not used again.
        unsafe { sys::prop_object_release(self.0.as_ptr()) }
    }
}

/// Bytes from which on proplib itself reads no request, before NetBSD 11.
const OWN_LIMIT: usize = 65_536;

/// A dictionary.
pub struct Dictionary(Object);

/// An array.
pub struct Array(Object);

impl Dictionary {
    /// Copies in the request of an ioctl, of up to `limit` bytes where the kernel lets a driver
    /// choose (NetBSD 11), else of up to 64 KiB.
    ///
    /// # Errors
    /// E2BIG for one that is too long, EFAULT, EIO for one that is no dictionary.
    pub fn copyin(
        reference: &sys::plistref,
        command: c_ulong,
        limit: usize,
    ) -> Result<Dictionary, Errno> {
        let mut raw = core::ptr::null_mut();
        // SAFETY: the reference is the ioctl's data, and there is room for the answer. Addresses
        // in it are userland's and are checked by copyin(9).
        let read =
            unsafe { sys::dm_shim_copyin_dictionary(reference, command, limit, &raw mut raw) };
        Errno::check(read).map_err(|errno| match errno {
            // Before NetBSD 11 proplib says EINVAL of a request that is too long, and of no other.
            Errno::EINVAL if reference.pref_len >= OWN_LIMIT => Errno::E2BIG,
            errno => errno,
        })?;
        Object::own(raw.cast()).map(Dictionary)
    }

    /// Copies out the reply of an ioctl.
    ///
    /// # Errors
    /// ENOMEM, EFAULT.
    pub fn copyout(&self, reference: &mut sys::plistref, command: c_ulong) -> Result<(), Errno> {
        // SAFETY: the reference is the ioctl's data, whose addresses are userland's and are checked
        // by copyout(9); the dictionary lives.
        Errno::check(unsafe {
            sys::prop_dictionary_copyout_ioctl(reference, command, self.0.raw())
        })
    }

    /// `true` if arrays and dictionaries lie in one another more than `limit` deep, this one
    /// counted.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn is_deeper_than(&self, limit: usize) -> Result<bool, Errno> {
        // SAFETY: the dictionary lives; so do the containers in it, which nobody changes meanwhile.
        let mut open = alloc::vec![unsafe { Contents::of(self.0.0) }?];
        while let Some(container) = open.last_mut() {
            let Some(object) = container.next() else {
                open.pop();
                continue;
            };
            // SAFETY: asks for the type of an object that its container holds.
            match unsafe { sys::prop_object_type(object.as_ptr()) } {
                sys::prop_type_t_PROP_TYPE_ARRAY | sys::prop_type_t_PROP_TYPE_DICTIONARY => {}
                _ => continue,
            }
            if open.len() >= limit {
                return Ok(true);
            }
            // SAFETY: the object's container, which lives, holds it, and nobody changes it
            // meanwhile.
            open.push(unsafe { Contents::of(object) }?);
        }
        Ok(false)
    }

    fn set(&mut self, key: &CStr, value: Object) -> Result<(), Errno> {
        // SAFETY: both live, and proplib takes a reference of its own to the value.
        let done = unsafe { sys::prop_dictionary_set(self.0.raw(), key.as_ptr(), value.raw()) };
        if done { Ok(()) } else { Err(Errno::ENOMEM) }
    }
}

/// An iterator over the elements of a container.
///
/// # Invariants
/// The iterator is ours, and of `container`, which lives and is not changed.
struct Contents {
    iterator: NonNull<sys::_prop_object_iterator>,
    container: NonNull<c_void>,
    /// `true` if the iterator gives the keys of a dictionary, not their values.
    keys: bool,
}

impl Contents {
    /// An iterator over an array or a dictionary.
    ///
    /// # Safety
    /// `container` is an array or a dictionary, which outlives this value unchanged.
    unsafe fn of(container: NonNull<c_void>) -> Result<Contents, Errno> {
        let raw = container.as_ptr();
        // SAFETY: the caller's promise; each function is for the type that was asked for.
        let (iterator, keys) = unsafe {
            match sys::prop_object_type(raw) {
                sys::prop_type_t_PROP_TYPE_DICTIONARY => {
                    (sys::prop_dictionary_iterator(raw.cast()), true)
                }
                _ => (sys::prop_array_iterator(raw.cast()), false),
            }
        };
        let iterator = NonNull::new(iterator).ok_or(Errno::ENOMEM)?;
        Ok(Contents { iterator, container, keys })
    }

    fn next(&mut self) -> Option<NonNull<c_void>> {
        // SAFETY: the iterator and its container live (invariant); a dictionary's iterator gives
        // its keys.
        unsafe {
            let object = NonNull::new(sys::prop_object_iterator_next(self.iterator.as_ptr()))?;
            if !self.keys {
                return Some(object);
            }
            let (dict, key) = (self.container.as_ptr().cast(), object.as_ptr().cast());
            NonNull::new(sys::prop_dictionary_get_keysym(dict, key))
        }
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        // SAFETY: the iterator is ours (invariant), and not used again.
        unsafe { sys::prop_object_iterator_release(self.iterator.as_ptr()) }
    }
}

/// Reads an object that a container holds for at least as long as `'a`.
///
/// # Safety
/// `raw` is null or an object that lives and is not changed during `'a`.
unsafe fn value<'a>(raw: *mut c_void) -> Option<Value<'a, Dictionary>> {
    let object = NonNull::new(raw)?;
    // SAFETY: the caller's promise; each accessor is for the type that was asked for.
    unsafe {
        Some(match sys::prop_object_type(raw) {
            sys::prop_type_t_PROP_TYPE_NUMBER => {
                let number = raw.cast();
                if sys::prop_number_unsigned(number) {
                    Value::Unsigned(sys::prop_number_unsigned_value(number))
                } else {
                    let signed = sys::prop_number_signed_value(number);
                    u64::try_from(signed).map_or(Value::Negative(signed), Value::Unsigned)
                }
            }
            sys::prop_type_t_PROP_TYPE_STRING => {
                let text = sys::prop_string_value(raw.cast());
                let text = (!text.is_null()).then(|| CStr::from_ptr(text).to_str().ok()).flatten();
                // A string with a NUL in it is cut at the NUL here, and is none of ours.
                match text.filter(|text| text.len() == sys::prop_string_size(raw.cast())) {
                    Some(text) => Value::String(text),
                    None => Value::Other,
                }
            }
            sys::prop_type_t_PROP_TYPE_ARRAY => Value::Array(Array(Object::share(object))),
            sys::prop_type_t_PROP_TYPE_DICTIONARY => {
                Value::Dictionary(Dictionary(Object::share(object)))
            }
            _ => Value::Other,
        })
    }
}

fn unsigned(value: u64) -> Result<Object, Errno> {
    // SAFETY: makes a new object.
    Object::own(unsafe { sys::prop_number_create_unsigned(value) }.cast())
}

fn signed(value: i64) -> Result<Object, Errno> {
    // SAFETY: makes a new object.
    Object::own(unsafe { sys::prop_number_create_signed(value) }.cast())
}

impl proplib::Dictionary for Dictionary {
    type Array = Array;

    fn new() -> Result<Dictionary, Errno> {
        // SAFETY: makes a new object.
        Object::own(unsafe { sys::prop_dictionary_create() }.cast()).map(Dictionary)
    }

    fn get(&self, key: &CStr) -> Option<Value<'_, Dictionary>> {
        // SAFETY: the dictionary lives, and is not changed while it is borrowed. Only the driver
        // has it, and what it holds of containers in it, it only reads.
        unsafe { value(sys::prop_dictionary_get(self.0.raw(), key.as_ptr()).cast()) }
    }

    fn set_unsigned(&mut self, key: &CStr, value: u64) -> Result<(), Errno> {
        self.set(key, unsigned(value)?)
    }

    fn set_signed(&mut self, key: &CStr, value: i64) -> Result<(), Errno> {
        self.set(key, signed(value)?)
    }

    fn set_string(&mut self, key: &CStr, value: &str) -> Result<(), Errno> {
        let text = CString::new(value).map_err(|_| Errno::EINVAL)?;
        // SAFETY: makes a new object of a copy of the string.
        let value = Object::own(unsafe { sys::prop_string_create_copy(text.as_ptr()) }.cast());
        // The text may hold a key.
        dm_sync::wipe(&mut text.into_bytes_with_nul());
        self.set(key, value?)
    }

    fn set_array(&mut self, key: &CStr, value: Array) -> Result<(), Errno> {
        self.set(key, value.0)
    }
}

impl Array {
    fn push(&mut self, value: Object) -> Result<(), Errno> {
        // SAFETY: both live, and proplib takes a reference of its own to the value.
        let done = unsafe { sys::prop_array_add(self.0.raw(), value.raw()) };
        if done { Ok(()) } else { Err(Errno::ENOMEM) }
    }
}

impl proplib::Array for Array {
    type Dictionary = Dictionary;

    fn new() -> Result<Array, Errno> {
        // SAFETY: makes a new object.
        Object::own(unsafe { sys::prop_array_create() }.cast()).map(Array)
    }

    fn len(&self) -> usize {
        // SAFETY: the array lives.
        unsafe { sys::prop_array_count(self.0.raw()) as usize }
    }

    fn get(&self, index: usize) -> Option<Value<'_, Dictionary>> {
        let index = c_uint::try_from(index).ok().filter(|_| index < self.len())?;
        // SAFETY: the array lives, and so does what it holds; the driver changes no array that it
        // reads.
        unsafe { value(sys::prop_array_get(self.0.raw(), index).cast()) }
    }

    fn push_unsigned(&mut self, value: u64) -> Result<(), Errno> {
        self.push(unsigned(value)?)
    }

    fn push_signed(&mut self, value: i64) -> Result<(), Errno> {
        self.push(signed(value)?)
    }

    fn push_dictionary(&mut self, value: Dictionary) -> Result<(), Errno> {
        self.push(value.0)
    }
}
