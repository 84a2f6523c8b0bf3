// SPDX-License-Identifier: BSD-2-Clause

//! vnode(9), vnodeops(9), namei(9) for device nodes: what miscfs/specfs and miscfs/deadfs do, over a
//! name space of its own.
//!
//! The rules are specfs's: a block device is open once at most, through whatever node (EBUSY,
//! also while it is being closed or is mounted); character devices as often as anyone likes, and
//! the driver's d_close comes at the last close; the vnode lock is given up around d_open and
//! d_close. A revoked node is closed at once, when the calls into the driver have come back, and
//! answers as deadfs does from then on. Simpler than NetBSD: a shared vnode lock is an exclusive
//! one, there is no buffer cache to flush. Stricter: the lock's state is checked at every
//! operation, a vnode given back while open stops the machine, and so does revoking a device from
//! its own d_close, which would wait for itself.
//!
//! This file has the names and the tables; `node.rs` the vnodes, their locks and references;
//! `open.rs` how a device is opened and closed; `revoke.rs` how it goes; `ops.rs` the rest.

mod node;
mod open;
mod ops;
mod revoke;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_int};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::console::kpanic;
use crate::dev::{Dev, NODEV};
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::lwp;
use crate::netbsd as nb;
use node::{Device, Node, VREG};

pub(crate) use node::{VBLK, VCHR, VOP_UNLOCK, is_block, rdev, vn_lock, vnode_of, vput, vrele};
pub(crate) use open::{VOP_OPEN, opens, set_mounted, vn_close};
pub(crate) use ops::{VOP_FDISCARD, VOP_IOCTL, VOP_READ, VOP_STRATEGY, VOP_WRITE, fail};
pub(crate) use revoke::vdevgone;

/// The object that a name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Block(Dev),
    Character(Dev),
    /// A file that is no device.
    Regular,
    Link(String),
}

/// A function that knows names beyond the table: the block device that a path names, or with `false` the character
/// device.
pub type Resolver = dyn Fn(&str) -> Option<(Dev, bool)> + Send + Sync;

struct Specfs {
    names: BTreeMap<String, Entry>,
    /// Asked for names that are not there.
    resolver: Option<Arc<Resolver>>,
    /// The vnodes that a look-up finds.
    nodes: HashMap<String, *mut Node>,
    /// Revoked nodes that still have references.
    dead: Vec<*mut Node>,
    devices: HashMap<(nb::vtype, Dev), *mut Device>,
}

// SAFETY: nodes and devices in the tables live; they are used under the lock or by reference.
unsafe impl Send for Specfs {}

static SPECFS: Mutex<Option<Specfs>> = Mutex::new(None);

struct Guard(MutexGuard<'static, Option<Specfs>>);

impl std::ops::Deref for Guard {
    type Target = Specfs;
    fn deref(&self) -> &Specfs {
        match self.0.as_ref() {
            Some(specfs) => specfs,
            None => kpanic!("specfs: the machine is down"),
        }
    }
}

impl std::ops::DerefMut for Guard {
    fn deref_mut(&mut self) -> &mut Specfs {
        match self.0.as_mut() {
            Some(specfs) => specfs,
            None => kpanic!("specfs: the machine is down"),
        }
    }
}

fn specfs() -> Guard {
    Guard(SPECFS.lock().unwrap_or_else(|e| e.into_inner()))
}

pub(crate) fn start() {
    *SPECFS.lock().unwrap_or_else(|e| e.into_inner()) = Some(Specfs {
        names: BTreeMap::new(),
        resolver: None,
        nodes: HashMap::new(),
        dead: Vec::new(),
        devices: HashMap::new(),
    });
}

/// Ends the name space; says which vnodes are still referenced or open.
pub(crate) fn stop() -> Vec<String> {
    let Some(specfs) = SPECFS.lock().unwrap_or_else(|e| e.into_inner()).take() else {
        return Vec::new();
    };
    let mut left = Vec::new();
    for node in specfs.nodes.into_values().chain(specfs.dead) {
        // SAFETY: nodes in the table live.
        unsafe {
            left.push(format!(
                "vnode of {} has {} references and is open {} times",
                (*node).name,
                (*(*node).vp()).v_usecount,
                (*node).opens().load(std::sync::atomic::Ordering::Relaxed)
            ));
        }
    }
    left
}

fn canonical(path: &str) -> String {
    let mut out = String::new();
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        out.push('/');
        out.push_str(part);
    }
    out
}

pub(crate) fn add_name(path: &str, entry: Entry) -> Result<(), Errno> {
    let mut specfs = specfs();
    let path = canonical(path);
    if specfs.names.contains_key(&path) {
        return Err(Errno::EEXIST);
    }
    specfs.names.insert(path, entry);
    Ok(())
}

pub(crate) fn remove_name(path: &str) -> Result<(), Errno> {
    specfs().names.remove(&canonical(path)).map(|_| ()).ok_or(Errno::ENOENT)
}

/// The names below a directory, sorted, and the objects that they stand for.
pub(crate) fn names() -> Vec<(String, Entry)> {
    specfs().names.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
}

/// Has `resolver` asked for names that are not there.
pub(crate) fn set_resolver(resolver: Arc<Resolver>) {
    specfs().resolver = Some(resolver);
}

pub(crate) fn lookup(path: &str) -> Result<(String, Entry), Errno> {
    match look(path) {
        Err(Errno::ENOENT) => {
            // The resolver makes system calls of its own.
            let resolver = specfs().resolver.clone().ok_or(Errno::ENOENT)?;
            let (dev, block) = resolver(&canonical(path)).ok_or(Errno::ENOENT)?;
            // The name may stand for another device the next time; the node's may not.
            Ok(match block {
                true => (format!("/dev/.block/{dev}"), Entry::Block(dev)),
                false => (format!("/dev/.character/{dev}"), Entry::Character(dev)),
            })
        }
        found => found,
    }
}

fn look(path: &str) -> Result<(String, Entry), Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    if path.len() >= nb::MAXPATHLEN as usize || path.split('/').any(|part| part.len() > 255) {
        return Err(Errno::ENAMETOOLONG);
    }
    let specfs = specfs();
    let mut path = canonical(path);
    for _ in 0..32 {
        match specfs.names.get(&path) {
            Some(Entry::Link(to)) => path = canonical(to),
            Some(entry) => return Ok((path, entry.clone())),
            None => {
                let mut at = path.as_str();
                while let Some((parent, _)) = at.rsplit_once('/') {
                    if specfs.names.contains_key(parent) {
                        return Err(Errno::ENOTDIR);
                    }
                    at = parent;
                }
                return Err(Errno::ENOENT);
            }
        }
    }
    Err(Errno::ELOOP)
}

/// A referenced vnode of a path.
pub(crate) fn namei(path: &str) -> Result<*mut nb::vnode, Errno> {
    let (name, entry) = lookup(path)?;
    let (kind, dev) = match entry {
        Entry::Block(dev) => (VBLK, dev),
        Entry::Character(dev) => (VCHR, dev),
        Entry::Regular | Entry::Link(_) => (VREG, NODEV),
    };
    Ok(node::vget(&mut specfs(), name, kind, dev))
}

/// namei_simple_kernel(9)
///
/// # Safety
///
/// `path` is a string; `vpp` receives the vnode.
#[unsafe(no_mangle)]
unsafe extern "C" fn namei_simple_kernel(
    path: *const c_char,
    _flags: nb::namei_simple_flags_t,
    vpp: *mut *mut nb::vnode,
) -> c_int {
    lwp::current().assert_sleepable("namei");
    crate::frugal::assert_may_wait("namei");
    if let Err(e) = fault::check(Site::Namei, Errno::ENOENT) {
        return e.0;
    }
    // SAFETY: the caller's promise.
    unsafe {
        match namei(&CStr::from_ptr(path).to_string_lossy()) {
            Ok(vp) => {
                *vpp = vp;
                0
            }
            Err(e) => e.0,
        }
    }
}

macro_rules! simple_flags {
    ($($name:ident),*) => { $(
        /// A way to look names up; the hosted kernel has only one.
        #[unsafe(no_mangle)]
        static $name: usize = 0;
    )* };
}

simple_flags!(
    NSM_NOFOLLOW_NOEMULROOT,
    NSM_NOFOLLOW_TRYEMULROOT,
    NSM_FOLLOW_NOEMULROOT,
    NSM_FOLLOW_TRYEMULROOT
);
