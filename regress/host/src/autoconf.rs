//! autoconf(9), pmf(9): drivers, attachments and device instances.
//!
//! Only pseudo-devices attach. As in NetBSD a detach waits for the references that
//! device_lookup_acquire gave, and config_attach_pseudo panics where the driver's tables are
//! missing. Simpler than NetBSD: no parents, no deferred attachment; suspend and resume run the
//! handlers of every registered device in order of attachment, or the reverse.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::console::{self, kassert, kpanic};
use crate::errno::Errno;
use crate::fault::{self, Site};
use crate::kmem::{kmem_free, kmem_zalloc};
use crate::lwp;
use crate::netbsd as nb;
use crate::proplib;

type Handler = unsafe extern "C" fn(nb::device_t, *const nb::pmf_qual_t) -> bool;
type Shutdown = unsafe extern "C" fn(nb::device_t, c_int) -> bool;

/// What a device_t points to.
struct Device {
    xname: CString,
    unit: c_int,
    cfdata: nb::cfdata_t,
    driver: *mut nb::cfdriver,
    attach: *mut nb::cfattach,
    private: *mut c_void,
    properties: nb::prop_dictionary_t,
    references: u32,
    attaching: u64,
    detaching: u64,
    committed: bool,
    active: bool,
    pmf: Option<Pmf>,
}

#[derive(Clone, Copy)]
struct Pmf {
    suspend: Option<Handler>,
    resume: Option<Handler>,
    shutdown: Option<Shutdown>,
}

struct Config {
    drivers: Vec<*mut nb::cfdriver>,
    attachments: Vec<(String, *mut nb::cfattach)>,
    devices: Vec<*mut Device>,
}

// SAFETY: what the pointers lead to is used under the lock, or belongs to a device that its user
// holds a reference to.
unsafe impl Send for Config {}

static CONFIG: Mutex<Config> =
    Mutex::new(Config { drivers: Vec::new(), attachments: Vec::new(), devices: Vec::new() });
static CHANGED: Condvar = Condvar::new();

fn config() -> MutexGuard<'static, Config> {
    CONFIG.lock().unwrap_or_else(|e| e.into_inner())
}

fn wait(guard: MutexGuard<'static, Config>) -> MutexGuard<'static, Config> {
    CHANGED.wait(guard).unwrap_or_else(|e| e.into_inner())
}

fn dev<'a>(d: nb::device_t) -> &'a mut Device {
    // SAFETY: callers pass a device_t of this file, which lives until its detach is over.
    unsafe { &mut *d.cast::<Device>() }
}

fn text(s: *const c_char) -> String {
    // SAFETY: callers pass strings.
    unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned()
}

fn tables(cf: nb::cfdata_t) -> Option<(*mut nb::cfdriver, *mut nb::cfattach)> {
    // SAFETY: callers pass a cfdata whose names are strings.
    let (name, atname) = unsafe { (text((*cf).cf_name), text((*cf).cf_atname)) };
    let config = config();
    // SAFETY: registered tables stay valid.
    let driver = config.drivers.iter().find(|d| unsafe { text((***d).cd_name) } == name)?;
    let attach = config
        .attachments
        .iter()
        // SAFETY: as above.
        .find(|(driver, ca)| *driver == name && unsafe { text((**ca).ca_name) } == atname)?;
    Some((*driver, attach.1))
}

/// What is still registered or attached, for the leak report.
pub(crate) fn leaks() -> Vec<String> {
    let mut config = config();
    let mut left = Vec::new();
    for device in config.devices.drain(..) {
        // SAFETY: listed devices live.
        left.push(format!("device {} was not detached", text(unsafe { (*device).xname.as_ptr() })));
    }
    for (driver, _) in config.attachments.drain(..) {
        left.push(format!("cfattach of {driver} was not detached"));
    }
    for driver in config.drivers.drain(..) {
        // SAFETY: registered tables stay valid.
        left.push(format!("cfdriver {} was not detached", unsafe { text((*driver).cd_name) }));
    }
    left
}

/// Names of the devices that are attached, in order of attachment.
pub fn devices() -> Vec<String> {
    // SAFETY: listed devices live.
    config().devices.iter().map(|d| unsafe { text((**d).xname.as_ptr()) }).collect()
}

/// config_detach of a device by name; ENXIO if there is none.
pub(crate) fn detach_by_name(name: &str, flags: c_int) -> Result<(), Errno> {
    let device = {
        let config = config();
        // SAFETY: listed devices live.
        let found = config.devices.iter().find(|d| unsafe { text((***d).xname.as_ptr()) } == name);
        let Some(device) = found.copied() else { return Err(Errno::ENXIO) };
        // SAFETY: as above.
        unsafe { (*device).references += 1 };
        device
    };
    // SAFETY: we hold a reference, which is given up.
    Errno::check(unsafe { config_detach_release(device.cast(), flags) })
}

/// config_detach_all: detaches what can be detached at shutdown; the names of what stays.
pub(crate) fn detach_all(flags: c_int) -> Vec<String> {
    let mut names = devices();
    names.reverse();
    names.retain(|name| detach_by_name(name, flags).is_err());
    names
}

/// Runs the devices' suspend (or resume) handlers; the name of the first that refuses.
pub(crate) fn power(resume: bool) -> Result<(), String> {
    let mut all: Vec<*mut Device> = config().devices.clone();
    if !resume {
        all.reverse();
    }
    for device in all {
        // SAFETY: tests do not detach devices during a suspend.
        let d = unsafe { &*device };
        let handler = d.pmf.and_then(|p| if resume { p.resume } else { p.suspend });
        if let Some(handler) = handler {
            // SAFETY: the driver's handler, for its device.
            if !unsafe { handler(device.cast(), ptr::null()) } {
                return Err(text(d.xname.as_ptr()));
            }
        }
    }
    Ok(())
}

/// Runs the devices' shutdown handlers.
pub(crate) fn pmf_shutdown() {
    let mut all: Vec<*mut Device> = config().devices.clone();
    all.reverse();
    for device in all {
        // SAFETY: as in `power`.
        if let Some(shutdown) = unsafe { (*device).pmf }.and_then(|p| p.shutdown) {
            // SAFETY: the driver's handler, for its device.
            unsafe { shutdown(device.cast(), 0) };
        }
    }
}

/// config_cfdriver_attach(9)
///
/// # Safety
///
/// `cd` stays valid until config_cfdriver_detach.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_cfdriver_attach(cd: *mut nb::cfdriver) -> c_int {
    if let Err(e) = fault::check(Site::ConfigTables, Errno::EEXIST) {
        return e.0;
    }
    let mut config = config();
    // SAFETY: the caller's promise; registered tables stay valid.
    unsafe {
        let name = text((*cd).cd_name);
        if config.drivers.iter().any(|d| text((**d).cd_name) == name) {
            return Errno::EEXIST.0;
        }
        (*cd).cd_devs = ptr::null_mut();
        (*cd).cd_ndevs = 0;
    }
    config.drivers.push(cd);
    0
}

/// config_cfdriver_detach(9): EBUSY while it has devices or attachments.
///
/// # Safety
///
/// As config_cfdriver_attach.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_cfdriver_detach(cd: *mut nb::cfdriver) -> c_int {
    let mut config = config();
    // SAFETY: the caller's promise; listed devices live.
    unsafe {
        let name = text((*cd).cd_name);
        if config.devices.iter().any(|d| (**d).driver == cd)
            || config.attachments.iter().any(|(driver, _)| *driver == name)
        {
            return Errno::EBUSY.0;
        }
    }
    match config.drivers.iter().position(|d| *d == cd) {
        Some(at) => {
            config.drivers.remove(at);
            drop(config);
            free_devs(cd);
            0
        }
        None => Errno::ESRCH.0,
    }
}

/// config_cfattach_attach(9)
///
/// # Safety
///
/// `name` is a string; `ca` stays valid until config_cfattach_detach.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_cfattach_attach(name: *const c_char, ca: *mut nb::cfattach) -> c_int {
    if let Err(e) = fault::check(Site::ConfigTables, Errno::EEXIST) {
        return e.0;
    }
    let name = text(name);
    let mut config = config();
    // SAFETY: registered tables stay valid.
    unsafe {
        if !config.drivers.iter().any(|d| text((**d).cd_name) == name) {
            return Errno::ESRCH.0;
        }
        let atname = text((*ca).ca_name);
        if config.attachments.iter().any(|(d, a)| *d == name && text((**a).ca_name) == atname) {
            return Errno::EEXIST.0;
        }
    }
    config.attachments.push((name, ca));
    0
}

/// config_cfattach_detach(9): EBUSY while it has devices.
///
/// # Safety
///
/// As config_cfattach_attach.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_cfattach_detach(name: *const c_char, ca: *mut nb::cfattach) -> c_int {
    let name = text(name);
    let mut config = config();
    // SAFETY: listed devices live.
    if config.devices.iter().any(|d| unsafe { (**d).attach == ca }) {
        return Errno::EBUSY.0;
    }
    match config.attachments.iter().position(|(d, a)| *d == name && *a == ca) {
        Some(at) => {
            config.attachments.remove(at);
            0
        }
        None => Errno::ESRCH.0,
    }
}

/// config_attach_pseudo_acquire(9): the caller releases the device with device_release.
///
/// # Safety
///
/// `cf` stays valid until the device is detached.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_attach_pseudo_acquire(
    cf: nb::cfdata_t,
    aux: *mut c_void,
) -> nb::device_t {
    lwp::current().assert_sleepable("config_attach_pseudo");
    if fault::check(Site::ConfigAttach, Errno::ENOMEM).is_err() {
        return ptr::null_mut();
    }
    let Some((driver, attach)) = tables(cf) else {
        kpanic!("config_attach_pseudo: no driver or attachment of that name is registered");
    };
    // SAFETY: the caller's promise; registered tables stay valid.
    unsafe {
        let mut config = config();
        let star = (*cf).cf_fstate == nb::FSTATE_STAR as u8;
        let taken = |unit: c_int| {
            unit < (*driver).cd_ndevs && !(*(*driver).cd_devs.add(unit as usize)).is_null()
        };
        let mut unit = cf_unit(cf);
        if star {
            while taken(unit) {
                unit += 1;
            }
        } else {
            if taken(unit) {
                return ptr::null_mut();
            }
            kassert!(
                (*cf).cf_fstate == nb::FSTATE_NOTFOUND as u8,
                "config_attach_pseudo: cf_fstate {} of a cfdata that is in use",
                (*cf).cf_fstate
            );
            (*cf).cf_fstate = nb::FSTATE_FOUND as u8;
        }
        let name = format!("{}{unit}", text((*driver).cd_name));
        kassert!(name.len() < 16, "config_attach_pseudo: the name {name} is too long");
        let size = (*attach).ca_devsize;
        let private = if size > 0 {
            // Not under the lock: it may sleep in a real kernel. Here it may wait for memory.
            drop(config);
            let private = kmem_zalloc(size, nb::KM_SLEEP as nb::km_flag_t);
            config = self::config();
            private
        } else {
            ptr::null_mut()
        };
        let device = Box::into_raw(Box::new(Device {
            xname: CString::new(name).unwrap_or_default(),
            unit,
            cfdata: cf,
            driver,
            attach,
            private,
            properties: proplib::dictionary_create(),
            references: 1,
            attaching: lwp::current().addr(),
            detaching: 0,
            committed: false,
            active: true,
            pmf: None,
        }));
        set_devs(driver, unit, device.cast());
        config.devices.push(device);
        drop(config);
        if let Some(attach) = (*attach).ca_attach {
            attach(ptr::null_mut(), device.cast(), aux);
        }
        let _config = self::config();
        (*device).attaching = 0;
        CHANGED.notify_all();
        device.cast()
    }
}

/// config_attach_pseudo(9)
///
/// # Safety
///
/// As config_attach_pseudo_acquire.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_attach_pseudo(cf: nb::cfdata_t) -> nb::device_t {
    // SAFETY: the caller's promise.
    unsafe {
        let device = config_attach_pseudo_acquire(cf, ptr::null_mut());
        if !device.is_null() {
            device_release(device);
        }
        device
    }
}

/// The unit that a cfdata asks for.
fn cf_unit(cf: nb::cfdata_t) -> c_int {
    // SAFETY: callers pass a cfdata.
    unsafe { (*cf).cf_unit() as c_int }
}

/// Grows cd_devs as needed, in kmem as NetBSD does, and sets one entry.
fn set_devs(cd: *mut nb::cfdriver, unit: c_int, device: nb::device_t) {
    // SAFETY: a registered driver; cd_devs has cd_ndevs entries, and the lock is held.
    unsafe {
        if unit >= (*cd).cd_ndevs {
            let count = (unit as usize + 1).next_power_of_two().max(4);
            let devs = Box::into_raw(vec![ptr::null_mut::<nb::device>(); count].into_boxed_slice())
                .cast::<nb::device_t>();
            let (old, old_count) = ((*cd).cd_devs, (*cd).cd_ndevs as usize);
            if !old.is_null() {
                ptr::copy_nonoverlapping(old, devs, old_count);
                drop(Box::from_raw(ptr::slice_from_raw_parts_mut(old, old_count)));
            }
            (*cd).cd_devs = devs;
            (*cd).cd_ndevs = count as c_int;
        }
        *(*cd).cd_devs.add(unit as usize) = device;
    }
}

fn free_devs(cd: *mut nb::cfdriver) {
    // SAFETY: as set_devs.
    unsafe {
        let (old, count) = ((*cd).cd_devs, (*cd).cd_ndevs as usize);
        if !old.is_null() {
            drop(Box::from_raw(ptr::slice_from_raw_parts_mut(old, count)));
        }
        (*cd).cd_devs = ptr::null_mut();
        (*cd).cd_ndevs = 0;
    }
}

/// config_detach_release(9): gives up the caller's reference and detaches.
///
/// # Safety
///
/// The caller holds a reference to the device.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_detach_release(d: nb::device_t, flags: c_int) -> c_int {
    let lwp = lwp::current();
    lwp.assert_sleepable("config_detach");
    let device = d.cast::<Device>();
    let me = lwp.addr();
    let mut guard = config();
    // SAFETY: the device lives while it is listed; fields are used under the lock.
    unsafe {
        kassert!(guard.devices.contains(&device), "config_detach: {d:p} is not attached");
        kassert!((*device).references > 0, "config_detach: no reference is held");
        // NetBSD gives the reference up only after this wait, so that two detaches at once wait
        // for each other; here the second finds the device gone.
        (*device).references -= 1;
        CHANGED.notify_all();
        loop {
            let Device { attaching, detaching, .. } = *device;
            if attaching == 0 && detaching == 0 {
                break;
            }
            kassert!(detaching != me, "config_detach: recursively");
            guard = wait(guard);
            if !guard.devices.contains(&device) {
                return Errno::ENOENT.0;
            }
        }
        (*device).detaching = me;
        drop(guard);

        let name = text((*device).xname.as_ptr());
        let shutdown = nb::DETACH_SHUTDOWN;
        let unforced = flags & (shutdown | nb::DETACH_FORCE) == shutdown;
        let error = match (*(*device).attach).ca_detach {
            _ if unforced && (*(*device).attach).ca_flags & nb::DVF_DETACH_SHUTDOWN == 0 => {
                Errno::EOPNOTSUPP.0
            }
            Some(detach) => detach(d, flags),
            None => Errno::EOPNOTSUPP.0,
        };
        let mut guard = config();
        if error != 0 {
            kassert!(!(*device).committed, "{name}: detach failed after config_detach_commit");
            if flags & nb::DETACH_FORCE != 0 {
                kpanic!("config_detach: forced detach of {name} failed ({error})");
            }
            (*device).detaching = 0;
            CHANGED.notify_all();
            return error;
        }
        (*device).committed = true;
        (*device).active = false;
        CHANGED.notify_all();
        loop {
            let Device { references, .. } = *device;
            if references == 0 {
                break;
            }
            guard = wait(guard);
        }
        kassert!((*device).pmf.is_none(), "config_detach: {name} is still registered with pmf(9)");
        *(*(*device).driver).cd_devs.add((*device).unit as usize) = ptr::null_mut();
        guard.devices.retain(|d| *d != device);
        CHANGED.notify_all();
        drop(guard);
        proplib::release((*device).properties.cast());
        let size = (*(*device).attach).ca_devsize;
        if size > 0 {
            kmem_free((*device).private, size);
        }
        drop(Box::from_raw(device));
        if flags & nb::DETACH_QUIET == 0 {
            console::print(&format!("{name}: detached\n"));
        }
    }
    0
}

/// config_detach(9)
///
/// # Safety
///
/// The device is attached.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_detach(d: nb::device_t, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        device_acquire(d);
        config_detach_release(d, flags)
    }
}

/// config_detach_commit(9)
///
/// # Safety
///
/// Called by the device's own detach.
#[unsafe(no_mangle)]
unsafe extern "C" fn config_detach_commit(d: nb::device_t) {
    let _config = config();
    kassert!(dev(d).detaching == lwp::current().addr(), "config_detach_commit: not detaching");
    dev(d).committed = true;
    CHANGED.notify_all();
}

/// device_acquire(9)
///
/// # Safety
///
/// The device is attached and cannot go away meanwhile.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_acquire(d: nb::device_t) {
    let _config = config();
    dev(d).references += 1;
}

/// device_release(9)
///
/// # Safety
///
/// The caller holds a reference.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_release(d: nb::device_t) {
    let _config = config();
    kassert!(dev(d).references > 0, "device_release: no reference is held");
    dev(d).references -= 1;
    CHANGED.notify_all();
}

/// device_lookup(9): null if there is no such unit.
///
/// # Safety
///
/// `cd` is a registered driver.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_lookup(cd: nb::cfdriver_t, unit: c_int) -> nb::device_t {
    let _config = config();
    lookup(cd, unit)
}

fn lookup(cd: nb::cfdriver_t, unit: c_int) -> nb::device_t {
    // SAFETY: cd_devs has cd_ndevs entries while the lock is held.
    unsafe {
        if unit < 0 || unit >= (*cd).cd_ndevs {
            return ptr::null_mut();
        }
        *(*cd).cd_devs.add(unit as usize)
    }
}

/// device_lookup_private(9)
///
/// # Safety
///
/// As device_lookup.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_lookup_private(cd: nb::cfdriver_t, unit: c_int) -> *mut c_void {
    let _config = config();
    let d = lookup(cd, unit);
    if d.is_null() { ptr::null_mut() } else { dev(d).private }
}

/// device_lookup_acquire(9): waits for an attach or detach to finish.
///
/// # Safety
///
/// As device_lookup.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_lookup_acquire(cd: nb::cfdriver_t, unit: c_int) -> nb::device_t {
    let mut guard = config();
    loop {
        let d = lookup(cd, unit);
        if d.is_null() || dev(d).committed {
            return ptr::null_mut();
        }
        if dev(d).attaching == 0 && dev(d).detaching == 0 {
            dev(d).references += 1;
            return d;
        }
        if dev(d).attaching == lwp::current().addr() {
            return ptr::null_mut();
        }
        guard = wait(guard);
    }
}

macro_rules! accessors {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty = |$d:ident| $value:expr;)*) => {
        $(
            $(#[doc = $doc])*
            ///
            /// # Safety
            ///
            /// The device is attached.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(d: nb::device_t) -> $type {
                let $d = dev(d);
                $value
            }
        )*
    };
}

accessors! {
    /// device_xname(9)
    device_xname: *const c_char = |d| d.xname.as_ptr();
    /// The same for variadic.c.
    dm_host_xname: *const c_char = |d| d.xname.as_ptr();
    /// device_unit(9)
    device_unit: c_int = |d| d.unit;
    /// device_cfdata(9)
    device_cfdata: nb::cfdata_t = |d| d.cfdata;
    /// device_cfdriver(9)
    device_cfdriver: nb::cfdriver_t = |d| d.driver;
    /// device_cfattach(9)
    device_cfattach: nb::cfattach_t = |d| d.attach;
    /// device_private(9)
    device_private: *mut c_void = |d| d.private;
    /// device_properties(9)
    device_properties: nb::prop_dictionary_t = |d| d.properties;
    /// device_is_active(9)
    device_is_active: bool = |d| d.active;
    /// device_class(9)
    device_class: nb::devclass = |d| {
        // SAFETY: registered tables stay valid.
        unsafe { (*d.driver).cd_class }
    };
}

/// device_parent(9): pseudo-devices have none.
#[unsafe(no_mangle)]
extern "C" fn device_parent(_d: nb::device_t) -> nb::device_t {
    ptr::null_mut()
}

/// device_set_private(9): once only, and not where autoconf allocated it.
///
/// # Safety
///
/// The device is attached.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_set_private(d: nb::device_t, private: *mut c_void) {
    // SAFETY: registered tables stay valid.
    let size = unsafe { (*dev(d).attach).ca_devsize };
    kassert!(size == 0, "device_set_private: autoconf allocated it");
    kassert!(
        dev(d).private.is_null() || private.is_null() || dev(d).private == private,
        "device_set_private: set already"
    );
    dev(d).private = private;
}

/// device_is_a(9)
///
/// # Safety
///
/// The device is attached; `name` is a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_is_a(d: nb::device_t, name: *const c_char) -> bool {
    // SAFETY: registered tables stay valid.
    text(unsafe { (*dev(d).driver).cd_name }) == text(name)
}

/// device_find_by_xname(9)
///
/// # Safety
///
/// `name` is a string.
#[unsafe(no_mangle)]
unsafe extern "C" fn device_find_by_xname(name: *const c_char) -> nb::device_t {
    let name = text(name);
    let config = config();
    // SAFETY: listed devices live.
    let found = config.devices.iter().find(|d| unsafe { text((***d).xname.as_ptr()) } == name);
    found.map_or(ptr::null_mut(), |d| d.cast())
}

/// pmf_device_register1(9)
///
/// # Safety
///
/// The device is attached; the handlers take it.
#[unsafe(no_mangle)]
unsafe extern "C" fn pmf_device_register1(
    d: nb::device_t,
    suspend: Option<Handler>,
    resume: Option<Handler>,
    shutdown: Option<Shutdown>,
) -> bool {
    if fault::check(Site::Pmf, Errno::ENOMEM).is_err() {
        return false;
    }
    let _config = config();
    kassert!(dev(d).pmf.is_none(), "pmf_device_register: registered already");
    dev(d).pmf = Some(Pmf { suspend, resume, shutdown });
    true
}

/// pmf_device_deregister(9)
///
/// # Safety
///
/// The device is attached.
#[unsafe(no_mangle)]
unsafe extern "C" fn pmf_device_deregister(d: nb::device_t) {
    let _config = config();
    dev(d).pmf = None;
}
