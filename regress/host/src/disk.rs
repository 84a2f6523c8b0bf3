// SPDX-License-Identifier: BSD-2-Clause

//! disk(9), bounds checks aside (buf.rs).

use std::ffi::{CStr, c_char, c_int, c_long, c_void};

use crate::console::kassert;
use crate::dev::{Dev, NODEV, minor};
use crate::dkwedge;
use crate::errno::Errno;
use crate::frugal;
use crate::iostat;
use crate::kmem::{kmem_free, kmem_zalloc};
use crate::lwp;
use crate::mutex;
use crate::netbsd as nb;
use crate::proplib;

const SLEEP: nb::km_flag_t = nb::KM_SLEEP as nb::km_flag_t;
const BLKDEV_IOSIZE: u32 = 2048;
const IOSTAT_DISK: i32 = 0;

unsafe extern "C" {
    fn mutex_init(m: *mut nb::kmutex_t, kind: nb::kmutex_type_t, ipl: c_int);
    fn mutex_destroy(m: *mut nb::kmutex_t);
    fn device_properties(d: nb::device_t) -> nb::prop_dictionary_t;
    fn prop_dictionary_set_uint16(d: nb::prop_dictionary_t, k: *const c_char, v: u16) -> bool;
    fn prop_dictionary_set_uint32(d: nb::prop_dictionary_t, k: *const c_char, v: u32) -> bool;
    fn prop_dictionary_set_uint64(d: nb::prop_dictionary_t, k: *const c_char, v: u64) -> bool;
    fn prop_dictionary_set_string(
        d: nb::prop_dictionary_t,
        k: *const c_char,
        v: *const c_char,
    ) -> bool;
    fn prop_dictionary_set_and_rel(
        d: nb::prop_dictionary_t,
        k: *const c_char,
        v: nb::prop_object_t,
    ) -> bool;
    fn prop_object_release(o: nb::prop_object_t);
    fn prop_object_retain(o: nb::prop_object_t);
    fn prop_dictionary_copyout_ioctl(
        reference: *mut nb::plistref,
        cmd: nb::u_long,
        d: nb::prop_dictionary_t,
    ) -> c_int;
}

/// The partition of a disk's device number, on amd64.
pub(crate) fn part(dev: Dev) -> usize {
    minor(dev) as usize % nb::MAXPARTITIONS as usize
}

/// disk_init(9)
///
/// # Safety
///
/// `dk` is zeroed or destroyed; `name` and `driver` outlive it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn disk_init(
    dk: *mut nb::disk,
    name: *const c_char,
    driver: *const nb::dkdriver,
) {
    // SAFETY: the caller's promise.
    unsafe {
        mutex_init(&raw mut (*dk).dk_rawlock, 0, nb::IPL_NONE);
        mutex_init(&raw mut (*dk).dk_openlock, 0, nb::IPL_NONE);
        (*dk).dk_wedges.lh_first = std::ptr::null_mut();
        (*dk).dk_nwedges = 0;
        (*dk).dk_labelsector = nb::LABELSECTOR.into();
        (*dk).dk_blkshift = 0;
        (*dk).dk_byteshift = 9;
        (*dk).dk_name = name;
        (*dk).dk_driver = driver;
    }
}

/// disk_attach(9)
///
/// # Safety
///
/// `dk` is initialised, as below.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn disk_attach(dk: *mut nb::disk) {
    lwp::current().assert_sleepable("disk_attach");
    frugal::assert_may_wait("disk_attach");
    // SAFETY: the caller's promise.
    unsafe {
        (*dk).dk_label = kmem_zalloc(size_of::<nb::disklabel>(), SLEEP).cast();
        (*dk).dk_cpulabel = kmem_zalloc(size_of::<nb::cpu_disklabel>(), SLEEP).cast();
        (*dk).dk_stats = iostat::iostat_alloc(IOSTAT_DISK, dk.cast(), (*dk).dk_name);
    }
}

/// disk_begindetach(9): EBUSY while open, unless forced.
///
/// # Safety
///
/// `dk` is attached.
#[unsafe(no_mangle)]
unsafe extern "C" fn disk_begindetach(
    dk: *mut nb::disk,
    lastclose: Option<unsafe extern "C" fn(nb::device_t) -> c_int>,
    device: nb::device_t,
    flags: c_int,
) -> c_int {
    let lwp = lwp::current();
    // SAFETY: the caller's promise.
    unsafe {
        mutex::enter(&raw mut (*dk).dk_openlock, lwp);
        let error = if (*dk).dk_openmask == 0 {
            0
        } else if flags & nb::DETACH_FORCE == 0 {
            Errno::EBUSY.0
        } else {
            lastclose.map_or(0, |close| close(device))
        };
        mutex::exit(&raw mut (*dk).dk_openlock, lwp);
        error
    }
}

/// disk_detach(9)
///
/// # Safety
///
/// `dk` is attached.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn disk_detach(dk: *mut nb::disk) {
    // SAFETY: the caller's promise.
    unsafe {
        kassert!((*dk).dk_nwedges == 0, "disk_detach: the disk still has wedges (dkwedge_delall)");
        iostat::iostat_free((*dk).dk_stats);
        if !(*dk).dk_info.is_null() {
            prop_object_release((*dk).dk_info.cast());
            (*dk).dk_info = std::ptr::null_mut();
        }
        kmem_free((*dk).dk_label.cast(), size_of::<nb::disklabel>());
        kmem_free((*dk).dk_cpulabel.cast(), size_of::<nb::cpu_disklabel>());
        (*dk).dk_stats = std::ptr::null_mut();
        (*dk).dk_label = std::ptr::null_mut();
        (*dk).dk_cpulabel = std::ptr::null_mut();
    }
}

/// disk_destroy(9)
///
/// # Safety
///
/// `dk` is initialised and not attached.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn disk_destroy(dk: *mut nb::disk) {
    // SAFETY: the caller's promise.
    unsafe {
        kassert!((*dk).dk_stats.is_null(), "disk_destroy: the disk is still attached");
        mutex_destroy(&raw mut (*dk).dk_openlock);
        mutex_destroy(&raw mut (*dk).dk_rawlock);
    }
}

/// disk_rename(9)
///
/// # Safety
///
/// `dk` is attached; `name` outlives it.
#[unsafe(no_mangle)]
unsafe extern "C" fn disk_rename(dk: *mut nb::disk, name: *const c_char) {
    // SAFETY: the caller's promise.
    unsafe {
        (*dk).dk_name = name;
        iostat::iostat_rename((*dk).dk_stats, name);
    }
}

/// disk_find(9)
///
/// # Safety
///
/// `name` is a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn disk_find(name: *const c_char) -> *mut nb::disk {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    iostat::parent(&name).cast()
}

/// getdisksize(9): of an open disk, by DIOCGWEDGEINFO or DIOCGPARTINFO; EINVAL for odd sizes.
///
/// # Safety
///
/// `vp` is an open vnode; the others receive sectors and bytes in a sector.
#[unsafe(no_mangle)]
unsafe extern "C" fn getdisksize(
    vp: *mut nb::vnode,
    sectors: *mut u64,
    sector_size: *mut u32,
) -> c_int {
    const MAXBSIZE: u32 = 65536;
    let ioctl = crate::specfs::VOP_IOCTL;
    // SAFETY: the caller's promise; the commands fill structures of these types.
    unsafe {
        let mut wedge: nb::dkwedge_info = std::mem::zeroed();
        let cmd = nb::DIOCGWEDGEINFO as nb::u_long;
        let mut error = ioctl(vp, cmd, (&raw mut wedge).cast(), nb::FREAD, std::ptr::null_mut());
        let mut found = (0, 0);
        if error == 0 {
            let parent = disk_find(wedge.dkw_parent.as_ptr());
            match parent.as_ref() {
                Some(parent) => found = (wedge.dkw_size, 512u32 << parent.dk_blkshift),
                None => error = Errno::ENODEV.0,
            }
        }
        if error != 0 {
            let mut pi: nb::partinfo = std::mem::zeroed();
            let cmd = nb::DIOCGPARTINFO as nb::u_long;
            error = ioctl(vp, cmd, (&raw mut pi).cast(), nb::FREAD, std::ptr::null_mut());
            found = (pi.pi_size, pi.pi_secsize);
        }
        if error != 0 {
            return error;
        }
        let (count, size) = found;
        if !size.is_power_of_two() || size > MAXBSIZE || count == 0 {
            return Errno::EINVAL.0;
        }
        *sectors = count;
        *sector_size = size;
    }
    0
}

/// disk_wait(9)
///
/// # Safety
///
/// `dk` is attached, here and below; calls for one disk do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn disk_wait(dk: *mut nb::disk) {
    // SAFETY: the caller's promise.
    unsafe { iostat::iostat_wait((*dk).dk_stats) }
}

/// disk_busy(9)
///
/// # Safety
///
/// As disk_wait.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn disk_busy(dk: *mut nb::disk) {
    // SAFETY: the caller's promise.
    unsafe { iostat::iostat_busy((*dk).dk_stats) }
}

/// disk_unbusy(9)
///
/// # Safety
///
/// As disk_wait.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn disk_unbusy(dk: *mut nb::disk, bcount: c_long, read: c_int) {
    // SAFETY: the caller's promise.
    unsafe { iostat::iostat_unbusy((*dk).dk_stats, bcount, read) }
}

/// disk_isbusy(9)
///
/// # Safety
///
/// As disk_wait.
#[unsafe(no_mangle)]
unsafe extern "C" fn disk_isbusy(dk: *mut nb::disk) -> bool {
    // SAFETY: the caller's promise.
    unsafe { iostat::iostat_isbusy((*dk).dk_stats) }
}

/// disk_set_info(9): completes the geometry and publishes it.
///
/// # Safety
///
/// `dk` is attached; `device` is null or a device; `kind` is null or a string.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn disk_set_info(
    device: nb::device_t,
    dk: *mut nb::disk,
    kind: *const c_char,
) {
    lwp::current().assert_sleepable("disk_set_info");
    frugal::assert_may_wait("disk_set_info");
    // SAFETY: the caller's promise.
    unsafe {
        let dg = &mut (*dk).dk_geom;
        if dg.dg_secsize == 0 {
            dg.dg_secsize = 512;
        }
        kassert!(
            dg.dg_secsize.is_power_of_two() && dg.dg_secsize >= 512,
            "disk_set_info: sector size {}",
            dg.dg_secsize
        );
        (*dk).dk_blkshift = dg.dg_secsize.trailing_zeros() as c_int - 9;
        (*dk).dk_byteshift = dg.dg_secsize.trailing_zeros() as c_int;
        if dg.dg_secperunit == 0 {
            dg.dg_secperunit =
                i64::from(dg.dg_nsectors) * i64::from(dg.dg_ntracks) * i64::from(dg.dg_ncylinders);
        }
        let track = i64::from(dg.dg_ntracks) * i64::from(dg.dg_nsectors);
        if dg.dg_ncylinders == 0 && track != 0 {
            dg.dg_ncylinders = (dg.dg_secperunit / track) as u32;
        }
        // Not by the functions that tests have fail: the kernel does not look whether they did.
        let (info, geometry) = (proplib::dictionary_create(), proplib::dictionary_create());
        prop_dictionary_set_uint64(geometry, c"sectors-per-unit".as_ptr(), dg.dg_secperunit as u64);
        prop_dictionary_set_uint32(geometry, c"sector-size".as_ptr(), dg.dg_secsize);
        if dg.dg_nsectors != 0 {
            let count = dg.dg_nsectors as u16;
            prop_dictionary_set_uint16(geometry, c"sectors-per-track".as_ptr(), count);
        }
        if dg.dg_ntracks != 0 {
            let count = dg.dg_ntracks as u16;
            prop_dictionary_set_uint16(geometry, c"tracks-per-cylinder".as_ptr(), count);
        }
        if dg.dg_ncylinders != 0 {
            let count = dg.dg_ncylinders.into();
            prop_dictionary_set_uint64(geometry, c"cylinders-per-unit".as_ptr(), count);
        }
        prop_dictionary_set_and_rel(info, c"geometry".as_ptr(), geometry.cast());
        if !kind.is_null() {
            prop_dictionary_set_string(info, c"type".as_ptr(), kind);
        }
        let old = std::mem::replace(&mut (*dk).dk_info, info);
        if !device.is_null() {
            prop_object_retain(info.cast());
            let properties = device_properties(device);
            prop_dictionary_set_and_rel(properties, c"disk-info".as_ptr(), info.cast());
        }
        if !old.is_null() {
            prop_object_release(old.cast());
        }
    }
}

fn set_parent(dkw: &mut nb::dkwedge_info, name: *const c_char) {
    // SAFETY: the destination is an array of that size.
    unsafe {
        crate::copy::strlcpy(dkw.dkw_parent.as_mut_ptr(), name, dkw.dkw_parent.len());
    }
}

/// disk_ioctl(9): EPASSTHROUGH for a command that is not for disks.
///
/// # Safety
///
/// `dk` is attached; `data` is what the command takes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn disk_ioctl(
    dk: *mut nb::disk,
    dev: Dev,
    cmd: nb::u_long,
    data: *mut c_void,
    flag: c_int,
    l: *mut nb::lwp,
) -> c_int {
    const GDISKINFO: i64 = nb::DIOCGDISKINFO as i64;
    const GSECTORSIZE: i64 = nb::DIOCGSECTORSIZE as i64;
    const GMEDIASIZE: i64 = nb::DIOCGMEDIASIZE as i64;
    const GDINFO: i64 = nb::DIOCGDINFO as i64;
    const GPARTINFO: i64 = nb::DIOCGPARTINFO;
    const AWEDGE: i64 = nb::DIOCAWEDGE;
    const DWEDGE: i64 = nb::DIOCDWEDGE;
    const LWEDGES: i64 = nb::DIOCLWEDGES;
    const MWEDGES: i64 = nb::DIOCMWEDGES as i64;
    const RMWEDGES: i64 = nb::DIOCRMWEDGES as i64;
    let writing = flag & nb::FWRITE != 0;
    // SAFETY: the caller's promise.
    unsafe {
        let dg = &(*dk).dk_geom;
        match cmd as i64 {
            GDISKINFO => {
                let lwp = lwp::current();
                mutex::enter(&raw mut (*dk).dk_openlock, lwp);
                let info = (*dk).dk_info;
                if !info.is_null() {
                    prop_object_retain(info.cast());
                }
                mutex::exit(&raw mut (*dk).dk_openlock, lwp);
                if info.is_null() {
                    return Errno::ENOTSUP.0;
                }
                let error = prop_dictionary_copyout_ioctl(data.cast(), cmd, info);
                prop_object_release(info.cast());
                return error;
            }
            GSECTORSIZE => {
                *data.cast::<u32>() = dg.dg_secsize;
                return 0;
            }
            GMEDIASIZE => {
                *data.cast::<i64>() = i64::from(dg.dg_secsize) * dg.dg_secperunit;
                return 0;
            }
            _ => {}
        }
        if dev == NODEV {
            return Errno::EPASSTHROUGH.0;
        }
        match cmd as i64 {
            GDINFO => {
                if (*dk).dk_label.is_null() {
                    return Errno::EBUSY.0;
                }
                *data.cast::<nb::disklabel>() = *(*dk).dk_label;
                0
            }
            GPARTINFO => {
                let pi = data.cast::<nb::partinfo>();
                *pi = std::mem::zeroed();
                (*pi).pi_secsize = dg.dg_secsize;
                (*pi).pi_bsize = BLKDEV_IOSIZE.max(dg.dg_secsize);
                if part(dev) == nb::RAW_PART as usize {
                    (*pi).pi_size = dg.dg_secperunit as u64;
                    return 0;
                }
                if (*dk).dk_label.is_null() {
                    return Errno::EBUSY.0;
                }
                let p = &(*(*dk).dk_label).d_partitions[part(dev)];
                (*pi).pi_offset = p.p_offset.into();
                (*pi).pi_size = p.p_size.into();
                (*pi).pi_fstype = p.p_fstype;
                (*pi).pi_frag = p.p_frag;
                (*pi).pi_fsize = p.__partition_u2.fsize;
                (*pi).pi_cpg = p.__partition_u1.cpg;
                const FS_BSDFFS: u8 = 7;
                if p.p_fstype == FS_BSDFFS && p.p_frag != 0 && (*pi).pi_fsize != 0 {
                    (*pi).pi_bsize = u32::from(p.p_frag) * (*pi).pi_fsize;
                }
                0
            }
            AWEDGE | DWEDGE if !writing => Errno::EBADF.0,
            AWEDGE => {
                set_parent(&mut *data.cast(), (*dk).dk_name);
                dkwedge::dkwedge_add(data.cast())
            }
            DWEDGE => {
                set_parent(&mut *data.cast(), (*dk).dk_name);
                dkwedge::dkwedge_del(data.cast())
            }
            LWEDGES => dkwedge::dkwedge_list(dk, data.cast(), l),
            MWEDGES | RMWEDGES if !writing => Errno::EBADF.0,
            MWEDGES => {
                dkwedge::dkwedge_discover(dk);
                0
            }
            RMWEDGES => {
                dkwedge::dkwedge_delidle(dk);
                0
            }
            _ => Errno::EPASSTHROUGH.0,
        }
    }
}
