// SPDX-License-Identifier: BSD-2-Clause

//! The hosted kernel boots with the driver linked in, maps a disk, and comes down clean.

use dm_host::{Config, DiskSpec, Flags, Machine, Node, makedev};

fn plist(body: &str) -> String {
    format!("<plist version=\"1.0\">\n<dict>{body}</dict>\n</plist>\n")
}

fn command(name: &str, device: &str, data: &str) -> String {
    plist(&format!(
        "<key>command</key><string>{name}</string>\
         <key>version</key><array><integer>4</integer><integer>0</integer><integer>0</integer></array>\
         <key>name</key><string>{device}</string>{data}"
    ))
}

#[test]
fn boots_and_shuts_down() {
    let machine = Machine::boot(Config::test()).expect("boots");
    assert_eq!(machine.modules(), ["dm"]);
    let drivers = machine.drivers();
    let dm = drivers.iter().find(|d| d.name == "dm").expect("kern.drivers lists dm");
    assert_eq!((dm.block, dm.character), (Some(169), Some(194)));
    assert_eq!(machine.shutdown(), Vec::<String>::new());
}

#[test]
fn maps_a_disk() {
    let machine = Machine::boot(Config::test()).expect("boots");
    let disk = machine.attach_disk(DiskSpec::memory("dk0", 2048)).expect("attaches");
    let control = machine.open("/dev/mapper/control", Flags::READ_WRITE).expect("opens");
    control.plist_ioctl(&command("create", "one", "")).expect("create");
    let line = "<key>cmd_data</key><array><dict>\
        <key>start</key><integer>0</integer><key>length</key><integer>1024</integer>\
        <key>type</key><string>linear</string><key>params</key><string>/dev/dk0 512</string>\
        </dict></array>";
    control.plist_ioctl(&command("reload", "one", line)).expect("reload");
    control.plist_ioctl(&command("resume", "one", "")).expect("resume");
    {
        let node = Node::Character(makedev(194, 1));
        let file = machine.open(node, Flags::READ_WRITE).expect("opens the device");
        let data: Vec<u8> = (0..8192u32).map(|i| (i / 3) as u8).collect();
        assert_eq!(file.pwrite(&data, 4096), Ok(8192));
        let mut back = vec![0; 8192];
        disk.read_at(512 * 512 + 4096, &mut back);
        assert_eq!(back, data);
        back.fill(0);
        assert_eq!(file.pread(&mut back, 4096), Ok(8192));
        assert_eq!(back, data);
    }
    control.plist_ioctl(&command("remove", "one", "")).expect("remove");
    drop(control);
    assert_eq!(machine.shutdown(), Vec::<String>::new());
}
