// SPDX-License-Identifier: BSD-2-Clause

//! The commands that make, rename and remove a device, and the message to a target.

use alloc::string::String;

use super::request::{Request, new_name, new_uuid, number, string};
use super::{STATUS_FLAGS, flags};
use crate::device::{Device, FoundDevice};
use crate::kernel::Kernel;
use crate::proplib::{Array, Dictionary, Value};
use crate::units::{Minor, Sector};
use crate::{Errno, Refusal, limits};

impl<K: Kernel, D: Dictionary> Request<'_, K, D> {
    pub(super) fn create(&mut self) -> Result<(), Refusal> {
        let name = self
            .name()?
            .ok_or_else(|| Errno::EINVAL.because(format_args!("a device needs a name")))?;
        let uuid = self.uuid()?;
        let minor = match self.minor()?.filter(|_| self.has(flags::PERSISTENT_DEV)) {
            Some(minor) => Some(Minor::new(minor).ok_or_else(|| {
                Errno::EINVAL.because(format_args!(
                    "minor numbers go from 1 to {}, and {minor} is none of them",
                    Minor::MAX
                ))
            })?),
            None => None,
        };
        let taken = |errno| match errno {
            Errno::EEXIST => {
                errno.because(format_args!("another device has this name, or this uuid"))
            }
            Errno::EBUSY => errno.because(format_args!("another device has this minor number")),
            Errno::ENOSPC => {
                errno.because(format_args!("there are {} devices at most", limits::DEVICES))
            }
            errno => Refusal::from(errno),
        };
        let created = self.driver.create(name, uuid, minor, self.has(flags::READONLY));
        let found = created.map_err(taken)?;
        self.reply(&found).inspect_err(|_| {
            // The sender does not learn of the device: it must not be there. EBUSY, from a process
            // that has guessed its minor and opened it, is ignored: then the device stays.
            let _ = self.driver.remove(&found.device, false);
        })?;
        Ok(())
    }

    pub(super) fn remove(&mut self, found: &FoundDevice<K>) -> Result<(), Refusal> {
        let removed = self.driver.remove(&found.device, self.has(flags::DEFERRED_REMOVE));
        let gone = removed.map_err(|errno| match errno {
            Errno::EBUSY => errno.because(format_args!(
                "the device is open: {} of its nodes are, by programs, mounts or other devices",
                found.device.snapshot().open_count
            )),
            errno => errno.into(),
        })?;
        if !gone {
            return Ok(self.reply(found)?);
        }
        self.set_flags(self.flags & !STATUS_FLAGS)?;
        self.identify(found)?;
        self.set(c"open_count", 0)?;
        self.set(c"target_count", 0)?;
        Ok(self.set(c"event_nr", found.device.snapshot().event_nr)?)
    }

    pub(super) fn rename(&mut self, mut found: FoundDevice<K>) -> Result<(), Refusal> {
        let data = self.cmd_data()?;
        let Some(Value::String(new)) = data.get(0) else {
            return Err(Errno::EINVAL.because(format_args!("`cmd_data` does not hold a name")));
        };
        if self.has(flags::UUID) {
            let uuid = new_uuid(new)?;
            self.driver.set_uuid(&found.device, uuid.clone()).map_err(|errno| match errno {
                Errno::EEXIST => errno.because(format_args!("another device has this uuid")),
                Errno::EINVAL => errno.because(format_args!("the device has another uuid already")),
                errno => errno.into(),
            })?;
            found.uuid = Some(uuid);
        } else {
            let name = new_name(new)?;
            self.driver.rename(&found.device, name.clone()).map_err(|errno| match errno {
                Errno::EEXIST => errno.because(format_args!("another device has this name")),
                errno => errno.into(),
            })?;
            found.name = name;
        }
        Ok(self.reply(&found)?)
    }

    pub(super) fn message(&mut self, device: &Device<K>) -> Result<(), Refusal> {
        let sector = Sector(number(&*self.dict, c"sector")?.unwrap_or(0));
        let text = string(&*self.dict, c"message")?
            .ok_or_else(|| Errno::EINVAL.because(format_args!("there is no message")))?;
        if text.len() > limits::MESSAGE {
            return Err(Errno::ENAMETOOLONG.because(format_args!(
                "the message has {} bytes, of {} at most",
                text.len(),
                limits::MESSAGE
            )));
        }
        let mut reply = String::new();
        device.message(sector, text, &mut reply).map_err(|errno| match errno {
            Errno::EINVAL => {
                errno.because(format_args!("nobody who takes such a message is at sector {sector}"))
            }
            Errno::ENXIO => errno.because(format_args!("the device has no table")),
            errno => errno.into(),
        })?;
        if reply.is_empty() {
            return Ok(());
        }
        Ok(self.dict.set_string(c"message_reply", &reply)?)
    }
}
