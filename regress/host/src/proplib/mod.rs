// SPDX-License-Identifier: BSD-2-Clause

//! proplib(3): property objects, reference counted.
//!
//! Dictionaries keep their keys in order, numbers remember whether they are signed. Stricter than
//! NetBSD: a released object, or a pointer to none, stops the machine, and every object must be
//! gone at shutdown. As in a NetBSD kernel creating an object waits for memory and cannot fail.

mod array;
mod dictionary;
mod ioctl;
mod number;
mod string;
pub mod xml;

use std::ffi::{c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::console::{kassert, kpanic};
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::netbsd as nb;
use crate::registry::Registry;

pub use ioctl::{Reply, request};

const LIVE: u32 = 0x7072_6f70;
const DEAD: u32 = 0xdead_7072;

static OBJECTS: Registry<()> = Registry::new();

/// A property object, which a prop_object_t points to.
pub(crate) struct Object {
    magic: AtomicU32,
    references: AtomicU32,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Bool(bool),
    Number(Number),
    /// Bytes, and a NUL after them.
    String(Vec<u8>),
    Data(Vec<u8>),
    Array(Mutex<Array>),
    Dictionary(Mutex<Dictionary>),
    /// A key of a dictionary, and a NUL after it.
    Keysym(Vec<u8>),
    Iterator(Iterator),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Number {
    Signed(i64),
    Unsigned(u64),
}

#[derive(Default)]
pub(crate) struct Array {
    pub(crate) items: Vec<Ref>,
    pub(crate) immutable: bool,
    pub(crate) version: u64,
}

#[derive(Default)]
pub(crate) struct Dictionary {
    /// Keysym and value, in order of the keys.
    pub(crate) entries: Vec<(Ref, Ref)>,
    pub(crate) immutable: bool,
    pub(crate) version: u64,
}

pub(crate) struct Iterator {
    of: Ref,
    state: Mutex<(usize, u64)>,
}

/// A counted reference to an object.
pub(crate) struct Ref(*mut Object);

// SAFETY: objects are immutable, or guard what changes with a lock; their count is atomic.
unsafe impl Send for Ref {}
// SAFETY: as above.
unsafe impl Sync for Ref {}

impl Ref {
    pub(crate) fn new(body: Body) -> Ref {
        let object = Box::into_raw(Box::new(Object {
            magic: AtomicU32::new(LIVE),
            references: AtomicU32::new(1),
            body,
        }));
        OBJECTS.insert(object as usize, ());
        Ref(object)
    }

    /// Takes one more reference to an object that C code holds one to.
    pub(crate) fn retain(object: nb::prop_object_t) -> Option<Ref> {
        let object = get(object)?;
        object.references.fetch_add(1, Ordering::Relaxed);
        Some(Ref(std::ptr::from_ref(object).cast_mut()))
    }

    /// Takes over the reference that C code holds.
    pub(crate) fn from_raw(object: nb::prop_object_t) -> Option<Ref> {
        get(object).map(|o| Ref(std::ptr::from_ref(o).cast_mut()))
    }

    /// Hands the reference to C code.
    pub(crate) fn into_raw(self) -> nb::prop_object_t {
        let raw = self.0.cast();
        std::mem::forget(self);
        raw
    }

    /// The pointer, for C code that gets no reference of its own.
    pub(crate) fn as_raw(&self) -> nb::prop_object_t {
        self.0.cast()
    }

    pub(crate) fn body(&self) -> &Body {
        // SAFETY: a Ref keeps its object alive.
        unsafe { &(*self.0).body }
    }

    /// The key of a keysym.
    pub(crate) fn key(&self) -> &[u8] {
        match self.body() {
            Body::Keysym(key) => key.split_last().map_or(&[], |(_, key)| key),
            _ => &[],
        }
    }
}

impl Clone for Ref {
    fn clone(&self) -> Ref {
        // SAFETY: as in `body`.
        unsafe { (*self.0).references.fetch_add(1, Ordering::Relaxed) };
        Ref(self.0)
    }
}

impl Drop for Ref {
    fn drop(&mut self) {
        // Objects nest as deep as a request says: no recursion.
        let mut dying = Vec::new();
        let mut object = self.0;
        loop {
            // SAFETY: we hold a reference, and with the last one the object.
            unsafe {
                let o = &*object;
                kassert!(
                    o.magic.load(Ordering::Relaxed) == LIVE,
                    "prop_object_release: {object:p} is gone already"
                );
                if o.references.fetch_sub(1, Ordering::AcqRel) == 1 {
                    o.magic.store(DEAD, Ordering::Relaxed);
                    OBJECTS.remove(object as usize);
                    let mut owned = Box::from_raw(object);
                    match &mut owned.body {
                        Body::Array(array) => {
                            let array = array.get_mut().unwrap_or_else(|e| e.into_inner());
                            dying.extend(array.items.drain(..).map(take));
                        }
                        Body::Dictionary(dictionary) => {
                            let d = dictionary.get_mut().unwrap_or_else(|e| e.into_inner());
                            for (key, value) in d.entries.drain(..) {
                                dying.push(take(key));
                                dying.push(take(value));
                            }
                        }
                        _ => {}
                    }
                }
            }
            match dying.pop() {
                Some(next) => object = next,
                None => return,
            }
        }
    }
}

fn take(reference: Ref) -> *mut Object {
    let object = reference.0;
    std::mem::forget(reference);
    object
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// The object that C code means; None for a null pointer.
pub(crate) fn get<'a>(object: nb::prop_object_t) -> Option<&'a Object> {
    // SAFETY: C code passes an object that it holds a reference to; the magic number catches most
    // of those that it no longer does.
    let object = unsafe { object.cast::<Object>().as_ref() }?;
    if object.magic.load(Ordering::Relaxed) != LIVE {
        kpanic!("proplib: {object:p} is no object");
    }
    Some(object)
}

fn array<'a>(object: nb::prop_object_t) -> Option<std::sync::MutexGuard<'a, Array>> {
    match &get(object)?.body {
        Body::Array(array) => Some(lock(array)),
        _ => None,
    }
}

fn dictionary<'a>(object: nb::prop_object_t) -> Option<std::sync::MutexGuard<'a, Dictionary>> {
    match &get(object)?.body {
        Body::Dictionary(dictionary) => Some(lock(dictionary)),
        _ => None,
    }
}

/// An array of a shallow copy's items.
fn copy_of(object: nb::prop_object_t, immutable: bool) -> Option<Ref> {
    Some(Ref::new(match &get(object)?.body {
        Body::Array(array) => Body::Array(Mutex::new(Array {
            items: lock(array).items.clone(),
            immutable,
            version: 0,
        })),
        Body::Dictionary(dictionary) => Body::Dictionary(Mutex::new(Dictionary {
            entries: lock(dictionary).entries.clone(),
            immutable,
            version: 0,
        })),
        _ => return None,
    }))
}

fn or_null(reference: Option<Ref>) -> nb::prop_object_t {
    reference.map_or(std::ptr::null_mut(), Ref::into_raw)
}

/// Makes an object on behalf of a driver, unless a test has that fail.
fn fallible(make: impl FnOnce() -> Ref) -> nb::prop_object_t {
    or_null(allowed().then(make))
}

fn allowed() -> bool {
    crate::frugal::assert_may_wait("proplib");
    fault::check(Site::Prop, Errno::ENOMEM).is_ok()
}

fn bytes(text: *const c_char) -> Vec<u8> {
    // SAFETY: callers pass a string.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes_with_nul().to_vec()
}

pub(crate) fn dictionary_create() -> nb::prop_dictionary_t {
    Ref::new(Body::Dictionary(Mutex::default())).into_raw().cast()
}

pub(crate) fn release(object: nb::prop_object_t) {
    drop(Ref::from_raw(object));
}

/// Asserts that the object is none of our iterators, which are no objects in NetBSD.
fn assert_object(object: nb::prop_object_t) {
    if let Some(Object { body: Body::Iterator(_), .. }) = get(object) {
        kpanic!("proplib: {object:p} is an iterator: prop_object_iterator_release is for those");
    }
}

/// Objects never released, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    let all = OBJECTS.drain();
    // An object that is part of a leaked one is not worth a line of its own.
    let mut left: Vec<String> = Vec::new();
    let total = all.len();
    for (at, ()) in all.into_iter().take(8) {
        let kind = get(at as nb::prop_object_t).map_or("object", |o| o.body.kind_name());
        left.push(format!("{kind} at {at:#x} was not released (prop_object_release)"));
    }
    if total > left.len() {
        left.push(format!("… and {} more property objects", total - left.len()));
    }
    left
}

impl Body {
    fn kind_name(&self) -> &'static str {
        match self {
            Body::Bool(_) => "prop_bool",
            Body::Number(_) => "prop_number",
            Body::String(_) => "prop_string",
            Body::Data(_) => "prop_data",
            Body::Array(_) => "prop_array",
            Body::Dictionary(_) => "prop_dictionary",
            Body::Keysym(_) => "prop_dictionary_keysym",
            Body::Iterator(_) => "prop_object_iterator",
        }
    }

    fn kind(&self) -> nb::prop_type_t {
        match self {
            Body::Bool(_) => nb::prop_type_t_PROP_TYPE_BOOL,
            Body::Number(_) => nb::prop_type_t_PROP_TYPE_NUMBER,
            Body::String(_) => nb::prop_type_t_PROP_TYPE_STRING,
            Body::Data(_) => nb::prop_type_t_PROP_TYPE_DATA,
            Body::Array(_) => nb::prop_type_t_PROP_TYPE_ARRAY,
            Body::Dictionary(_) => nb::prop_type_t_PROP_TYPE_DICTIONARY,
            Body::Keysym(_) => nb::prop_type_t_PROP_TYPE_DICT_KEYSYM,
            Body::Iterator(_) => nb::prop_type_t_PROP_TYPE_UNKNOWN,
        }
    }
}

/// Compares as prop_object_equals(3) does: numbers by value, signed or not.
fn equals(a: &Ref, b: &Ref) -> bool {
    if a.0 == b.0 {
        return true;
    }
    match (a.body(), b.body()) {
        (Body::Bool(a), Body::Bool(b)) => a == b,
        (Body::Number(a), Body::Number(b)) => a.equals(*b),
        (Body::String(a), Body::String(b))
        | (Body::Data(a), Body::Data(b))
        | (Body::Keysym(a), Body::Keysym(b)) => a == b,
        (Body::Array(a), Body::Array(b)) => {
            let (a, b) = (lock(a).items.clone(), lock(b).items.clone());
            a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| equals(a, b))
        }
        (Body::Dictionary(a), Body::Dictionary(b)) => {
            let (a, b) = (lock(a).entries.clone(), lock(b).entries.clone());
            a.len() == b.len()
                && a.iter().zip(&b).all(|(a, b)| a.0.key() == b.0.key() && equals(&a.1, &b.1))
        }
        _ => false,
    }
}

/// prop_object_retain(3)
#[unsafe(no_mangle)]
extern "C" fn prop_object_retain(object: nb::prop_object_t) {
    assert_object(object);
    if let Some(reference) = Ref::retain(object) {
        std::mem::forget(reference);
    }
}

/// prop_object_release(3)
#[unsafe(no_mangle)]
extern "C" fn prop_object_release(object: nb::prop_object_t) {
    assert_object(object);
    release(object);
}

/// prop_object_type(3)
#[unsafe(no_mangle)]
extern "C" fn prop_object_type(object: nb::prop_object_t) -> nb::prop_type_t {
    get(object).map_or(nb::prop_type_t_PROP_TYPE_UNKNOWN, |o| o.body.kind())
}

/// prop_object_equals(3)
#[unsafe(no_mangle)]
extern "C" fn prop_object_equals(a: nb::prop_object_t, b: nb::prop_object_t) -> bool {
    match (Ref::retain(a), Ref::retain(b)) {
        (Some(a), Some(b)) => equals(&a, &b),
        _ => false,
    }
}

macro_rules! same_as_equals {
    ($($name:ident)*) => { $(
        /// prop_object_equals(3) for one type of object.
        #[unsafe(no_mangle)]
        extern "C" fn $name(a: nb::prop_object_t, b: nb::prop_object_t) -> bool {
            prop_object_equals(a, b)
        }
    )* };
}

same_as_equals!(prop_array_equals prop_dictionary_equals prop_dictionary_keysym_equals
    prop_number_equals prop_string_equals prop_data_equals prop_bool_equals);

fn iterator(object: nb::prop_object_t) -> nb::prop_object_t {
    let of = Ref::retain(object).filter(|_| allowed());
    let Some(of) = of else { return std::ptr::null_mut() };
    let version = match of.body() {
        Body::Array(a) => lock(a).version,
        Body::Dictionary(d) => lock(d).version,
        _ => return std::ptr::null_mut(),
    };
    Ref::new(Body::Iterator(Iterator { of, state: Mutex::new((0, version)) })).into_raw()
}

/// prop_array_iterator(3)
#[unsafe(no_mangle)]
extern "C" fn prop_array_iterator(object: nb::prop_object_t) -> nb::prop_object_t {
    iterator(object)
}

/// prop_dictionary_iterator(3)
#[unsafe(no_mangle)]
extern "C" fn prop_dictionary_iterator(object: nb::prop_object_t) -> nb::prop_object_t {
    iterator(object)
}

/// prop_object_iterator_next(3): null at the end, or when the collection has changed.
#[unsafe(no_mangle)]
extern "C" fn prop_object_iterator_next(iterator: nb::prop_object_t) -> nb::prop_object_t {
    let Some(Object { body: Body::Iterator(iterator), .. }) = get(iterator) else {
        return std::ptr::null_mut();
    };
    let mut state = lock(&iterator.state);
    let next = match iterator.of.body() {
        Body::Array(a) => {
            let a = lock(a);
            a.items.get(state.0).filter(|_| a.version == state.1).map(Ref::as_raw)
        }
        Body::Dictionary(d) => {
            let d = lock(d);
            d.entries.get(state.0).filter(|_| d.version == state.1).map(|(key, _)| key.as_raw())
        }
        _ => None,
    };
    if next.is_some() {
        state.0 += 1;
    }
    next.unwrap_or(std::ptr::null_mut())
}

/// prop_object_iterator_reset(3)
#[unsafe(no_mangle)]
extern "C" fn prop_object_iterator_reset(iterator: nb::prop_object_t) {
    if let Some(Object { body: Body::Iterator(iterator), .. }) = get(iterator) {
        let version = match iterator.of.body() {
            Body::Array(a) => lock(a).version,
            Body::Dictionary(d) => lock(d).version,
            _ => 0,
        };
        *lock(&iterator.state) = (0, version);
    }
}

/// prop_object_iterator_release(3)
#[unsafe(no_mangle)]
extern "C" fn prop_object_iterator_release(iterator: nb::prop_object_t) {
    release(iterator);
}

/// prop_bool_create(3)
#[unsafe(no_mangle)]
extern "C" fn prop_bool_create(value: bool) -> nb::prop_object_t {
    Ref::new(Body::Bool(value)).into_raw()
}

/// prop_bool_true(3)
#[unsafe(no_mangle)]
extern "C" fn prop_bool_true(object: nb::prop_object_t) -> bool {
    matches!(get(object), Some(Object { body: Body::Bool(true), .. }))
}

/// prop_bool_value(3)
#[unsafe(no_mangle)]
extern "C" fn prop_bool_value(object: nb::prop_object_t) -> bool {
    prop_bool_true(object)
}

/// prop_bool_copy(3)
#[unsafe(no_mangle)]
extern "C" fn prop_bool_copy(object: nb::prop_object_t) -> nb::prop_object_t {
    or_null(Ref::retain(object))
}

/// Allocates a text with malloc(9), which is malloc(3) here, for the caller of prop_*_externalize to free.
pub(crate) fn externalized(text: String) -> *mut c_char {
    // SAFETY: the block holds the text and a NUL.
    unsafe {
        let at = libc::malloc(text.len() + 1).cast::<u8>();
        if !at.is_null() {
            std::ptr::copy_nonoverlapping(text.as_ptr(), at, text.len());
            *at.add(text.len()) = 0;
        }
        at.cast()
    }
}

macro_rules! externalize {
    ($($name:ident)*) => { $(
        /// prop_object_externalize(3); the caller frees the text.
        #[unsafe(no_mangle)]
        extern "C" fn $name(object: nb::prop_object_t) -> *mut c_char {
            match Ref::retain(object) {
                Some(object) => externalized(xml::externalize(&object)),
                None => std::ptr::null_mut(),
            }
        }
    )* };
}

externalize!(prop_object_externalize prop_array_externalize prop_dictionary_externalize);

macro_rules! internalize {
    ($($name:ident: $wanted:pat => ();)*) => { $(
        /// prop_object_internalize(3): null if the text is none, or of another type.
        ///
        /// # Safety
        ///
        /// `text` is a string.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(text: *const c_char) -> nb::prop_object_t {
            // SAFETY: the caller's promise.
            let text = unsafe { std::ffi::CStr::from_ptr(text) };
            or_null(xml::internalize(text.to_bytes()).filter(|o| matches!(o.body(), $wanted)))
        }
    )* };
}

internalize! {
    prop_object_internalize: _ => ();
    prop_array_internalize: Body::Array(_) => ();
    prop_dictionary_internalize: Body::Dictionary(_) => ();
}

/// For variadic.c: a string object of a formatted text.
///
/// # Safety
///
/// `text` is a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn dm_host_prop_string(text: *const c_char) -> *mut c_void {
    Ref::new(Body::String(bytes(text))).into_raw()
}
