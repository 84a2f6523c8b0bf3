// SPDX-License-Identifier: BSD-2-Clause

//! sysctl(9): a tree of nodes that drivers add to, and that tests read and write by name.
//!
//! Simpler than NetBSD: rights are root for writing and everyone for reading.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, MutexGuard};

use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::lwp;
use crate::netbsd as nb;

const CTLTYPE_NODE: u32 = 1;
const CTLTYPE_INT: u32 = 2;
const CTLTYPE_STRING: u32 = 3;
const CTLTYPE_QUAD: u32 = 4;
const CTLTYPE_BOOL: u32 = 6;
const TYPEMASK: u32 = 0xf;
const READWRITE: u32 = 0x70;
const CTLFLAG_IMMEDIATE: u32 = 0x800;
const CTL_CREATE: c_int = -3;

type Node = Box<nb::sysctlnode>;

struct Entry {
    node: Node,
    parent: c_int,
    func: nb::sysctlfn,
}

struct Tree {
    entries: Vec<Entry>,
    next: c_int,
}

// SAFETY: nodes are used under the lock; what sysctl_data points to is the driver's to guard.
unsafe impl Send for Tree {}

static TREE: Mutex<Tree> = Mutex::new(Tree { entries: Vec::new(), next: 1000 });

/// A sysctllog: the numbers of the nodes that it created, in order.
struct Log(Vec<c_int>);

const TOP: [(&str, c_int); 5] = [("kern", 1), ("vm", 2), ("vfs", 3), ("hw", 6), ("machdep", 7)];

fn tree() -> MutexGuard<'static, Tree> {
    TREE.lock().unwrap_or_else(|e| e.into_inner())
}

/// The value of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// CTLTYPE_INT and CTLTYPE_BOOL
    Int(i32),
    /// CTLTYPE_QUAD
    Quad(i64),
    /// CTLTYPE_STRING
    String(String),
}

/// Nodes never torn down, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    let mut tree = tree();
    let left = tree.entries.iter().map(|e| format!("sysctl node {} is left", e.name())).collect();
    tree.entries.clear();
    left
}

impl Entry {
    fn name(&self) -> String {
        let name = &self.node.sysctl_name;
        name.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect()
    }
}

fn data_of(node: &nb::sysctlnode) -> *mut c_void {
    // SAFETY: sysctl_data is the first word of the union; any word is a valid pointer.
    unsafe { (&raw const node.sysctl_un).cast::<*mut c_void>().read() }
}

fn size_of_node(node: &nb::sysctlnode) -> usize {
    // SAFETY: on a 64-bit port the whole union is the size.
    unsafe { node._sysctl_size.__sysc_upad as usize }
}

/// For variadic.c: sysctl_createv(9).
///
/// # Safety
///
/// The arguments are those of sysctl_createv, the numbers as an array of `count`.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the kernel's signature")]
unsafe extern "C" fn dm_host_sysctl_createv(
    log: *mut *mut nb::sysctllog,
    _cflags: c_int,
    parent: *const *const nb::sysctlnode,
    out: *mut *const nb::sysctlnode,
    flags: c_int,
    kind: c_int,
    name: *const c_char,
    _descr: *const c_char,
    func: nb::sysctlfn,
    value: u64,
    data: *mut c_void,
    size: usize,
    numbers: *const c_int,
    count: usize,
) -> c_int {
    if let Err(e) = fault::check(Site::Sysctl, Errno::ENOMEM) {
        return e.0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let numbers = std::slice::from_raw_parts(numbers, count);
        let Some((last, path)) = numbers.split_last() else { return Errno::EINVAL.0 };
        let name = CStr::from_ptr(name).to_bytes();
        if name.is_empty() || name.len() >= 32 {
            return Errno::ENAMETOOLONG.0;
        }
        let mut tree = tree();
        let mut at =
            if parent.is_null() || (*parent).is_null() { 0 } else { (**parent).sysctl_num };
        for number in path {
            at = *number;
        }
        let text = String::from_utf8_lossy(name).into_owned();
        if tree.entries.iter().any(|e| e.parent == at && e.name() == text) {
            return Errno::EEXIST.0;
        }
        let mut node: Node = Box::new(std::mem::zeroed());
        node.sysctl_num = if *last == CTL_CREATE { tree.next } else { *last };
        tree.next += 1;
        node.sysctl_flags = flags as u32 | kind as u32;
        for (to, from) in node.sysctl_name.iter_mut().zip(name) {
            *to = *from as c_char;
        }
        if node.sysctl_flags & CTLFLAG_IMMEDIATE != 0 {
            node.sysctl_un.scu_qdata = value;
        } else {
            (&raw mut node.sysctl_un).cast::<*mut c_void>().write(data);
        }
        let size = match kind as u32 {
            CTLTYPE_INT if size == 0 => 4,
            CTLTYPE_QUAD if size == 0 => 8,
            CTLTYPE_BOOL if size == 0 => 1,
            _ => size,
        };
        node._sysctl_size.__sysc_upad = size as u64;
        let number = node.sysctl_num;
        if !out.is_null() {
            *out = &*node;
        }
        tree.entries.push(Entry { node, parent: at, func });
        if !log.is_null() {
            if (*log).is_null() {
                *log = Box::into_raw(Box::new(Log(Vec::new()))).cast();
            }
            (*(*log).cast::<Log>()).0.push(number);
        }
    }
    0
}

/// sysctl_teardown(9)
///
/// # Safety
///
/// `log` is a log that sysctl_createv filled.
#[unsafe(no_mangle)]
unsafe extern "C" fn sysctl_teardown(log: *mut *mut nb::sysctllog) {
    // SAFETY: the caller's promise.
    unsafe {
        if log.is_null() || (*log).is_null() {
            return;
        }
        let owned = Box::from_raw((*log).cast::<Log>());
        *log = ptr::null_mut();
        let mut tree = tree();
        for number in owned.0.iter().rev() {
            tree.entries.retain(|e| e.node.sysctl_num != *number);
        }
    }
}

/// sysctl_lookup(9): the default handler.
///
/// # Safety
///
/// The arguments are a handler's, and `rnode` has data.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the kernel's signature")]
unsafe extern "C" fn sysctl_lookup(
    _name: *const c_int,
    namelen: u32,
    oldp: *mut c_void,
    oldlenp: *mut usize,
    newp: *const c_void,
    newlen: usize,
    _oname: *const c_int,
    _l: *mut nb::lwp,
    rnode: *const nb::sysctlnode,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let node = &*rnode;
        if namelen != 0 {
            return Errno::EINVAL.0;
        }
        let kind = node.sysctl_flags & TYPEMASK;
        if !newp.is_null() {
            if node.sysctl_flags & READWRITE != READWRITE {
                return Errno::EPERM.0;
            }
            if lwp::current().uid.get() != 0 {
                return Errno::EPERM.0;
            }
        }
        let immediate = node.sysctl_flags & CTLFLAG_IMMEDIATE != 0;
        let at: *mut c_void =
            if immediate { (&raw const node.sysctl_un).cast_mut().cast() } else { data_of(node) };
        let size = size_of_node(node);
        let have = if kind == CTLTYPE_STRING { libc::strnlen(at.cast(), size) + 1 } else { size };
        if !oldp.is_null() {
            let room = *oldlenp;
            let count = have.min(room);
            let error = crate::copy::copyout(at, oldp, count);
            if error != 0 {
                return error;
            }
            *oldlenp = have;
            if room < have {
                return Errno::ENOMEM.0;
            }
        } else if !oldlenp.is_null() {
            *oldlenp = have;
        }
        if !newp.is_null() {
            if kind != CTLTYPE_STRING && newlen != size || newlen > size {
                return Errno::EINVAL.0;
            }
            return crate::copy::copyin(newp, at, newlen);
        }
    }
    0
}

/// Finds a node by its dotted name.
fn locate(tree: &Tree, name: &str) -> Option<(nb::sysctlnode, nb::sysctlfn)> {
    let mut parts = name.split('.');
    let top = parts.next()?;
    let mut at = TOP.iter().find(|(n, _)| *n == top)?.1;
    let mut found = None;
    for part in parts {
        let entry = tree.entries.iter().find(|e| e.parent == at && e.name() == part)?;
        at = entry.node.sysctl_num;
        found = Some((*entry.node, entry.func));
    }
    found
}

fn call(name: &str, old: Option<&mut [u8]>, new: Option<&[u8]>) -> Result<(u32, usize), Errno> {
    let (node, func) = locate(&tree(), name).ok_or(Errno::ENOENT)?;
    let kind = node.sysctl_flags & TYPEMASK;
    if kind == CTLTYPE_NODE {
        return Err(Errno::EISDIR);
    }
    let mut len = old.as_ref().map_or(0, |o| o.len());
    let oldp = old.map_or(ptr::null_mut(), |o| o.as_mut_ptr().cast());
    let (newp, newlen) = new.map_or((ptr::null(), 0), |n| (n.as_ptr().cast(), n.len()));
    let handler = func.unwrap_or(sysctl_lookup);
    let number = node.sysctl_num;
    // SAFETY: the handler that the driver registered, with this node; the lock is not held, so
    // that it may sleep.
    let error = unsafe {
        handler(
            ptr::null(),
            0,
            oldp,
            &mut len,
            newp,
            newlen,
            &number,
            lwp::current().addr() as *mut nb::lwp,
            &node,
        )
    };
    Errno::check(error)?;
    Ok((kind, len))
}

/// Reads a node: ENOENT if there is none.
pub(crate) fn get(name: &str) -> Result<Value, Errno> {
    let mut room = 256;
    loop {
        let mut old = vec![0u8; room];
        match call(name, Some(&mut old), None) {
            Err(Errno::ENOMEM) if room < 1 << 24 => room *= 8,
            Err(e) => return Err(e),
            Ok((kind, len)) => {
                old.truncate(len);
                return Ok(match kind {
                    CTLTYPE_STRING => {
                        let end = old.iter().position(|b| *b == 0).unwrap_or(old.len());
                        Value::String(String::from_utf8_lossy(&old[..end]).into_owned())
                    }
                    CTLTYPE_QUAD => {
                        Value::Quad(i64::from_ne_bytes(old.try_into().map_err(|_| Errno::EINVAL)?))
                    }
                    CTLTYPE_BOOL => Value::Int(old.first().map_or(0, |b| i32::from(*b))),
                    _ => Value::Int(i32::from_ne_bytes(old.try_into().map_err(|_| Errno::EINVAL)?)),
                });
            }
        }
    }
}

/// Writes a node: ENOENT if there is none, EPERM if it cannot be written or not by this user.
pub(crate) fn set(name: &str, value: &Value) -> Result<(), Errno> {
    let bytes = match value {
        Value::Int(v) => v.to_ne_bytes().to_vec(),
        Value::Quad(v) => v.to_ne_bytes().to_vec(),
        Value::String(v) => [v.as_bytes(), &[0]].concat(),
    };
    call(name, None, Some(&bytes)).map(|_| ())
}

/// Names of all nodes that have a value, sorted.
pub(crate) fn names() -> Vec<String> {
    let tree = tree();
    let full = |entry: &Entry| {
        let mut name = entry.name();
        let mut parent = entry.parent;
        while let Some(e) = tree.entries.iter().find(|e| e.node.sysctl_num == parent) {
            name = format!("{}.{name}", e.name());
            parent = e.parent;
        }
        let top = TOP.iter().find(|(_, number)| *number == parent).map_or("?", |t| t.0);
        format!("{top}.{name}")
    };
    let leaves = tree.entries.iter().filter(|e| e.node.sysctl_flags & TYPEMASK != CTLTYPE_NODE);
    let mut names: Vec<String> = leaves.map(full).collect();
    names.sort();
    names
}
