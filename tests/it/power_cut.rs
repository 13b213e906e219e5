//! The power fails: what was not synced to the disk is gone.
//!
//! The data directory lies on an ext4 file system in a file on a RAM disk. While the server is stopped in its tracks (SIGSTOP),
//! the file is copied: what is in the page cache of ext4 and was never synced is not in the copy, as after a power cut. The
//! server goes on from the copy, on which the same must hold as after a kill. Needs root and loop devices. Servers that other
//! tests start meanwhile sync all disks and can hide a sync that is missing here: `.ci/run` runs these tests alone.
//!
//! ```text
//! TIDEGATE_POWER_CUT_ROUNDS=100 TIDEGATE_POWER_CUT_SEED=7 cargo test --test it power_cut
//! ```

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::ledger::Ledger;
use crate::server::{Server, Settings};
use crate::{number_from_env, say};

/// Where Linux keeps a RAM disk for everybody.
const RAM_DISK: &str = "/dev/shm";
const DISK_SIZE: &str = "768M";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives() {
    let rounds = number_from_env("TIDEGATE_POWER_CUT_ROUNDS", 20);
    let seed = number_from_env("TIDEGATE_POWER_CUT_SEED", 1);
    let mut random = SmallRng::seed_from_u64(seed);
    let mut disk = match Disk::new() {
        Ok(disk) => disk,
        Err(reason) => return say(&format!("power cut: SKIPPED, {reason}")),
    };
    let settings = Settings { environment: vec![("TIDEGATE_CHECKPOINT_INTERVAL", "100ms".into())], ..Settings::default() };
    let mut server = Server::start(&disk.mounted(), settings.clone()).await;
    let mut ledger = Ledger::new(seed);
    ledger.set_up(&server).await;
    for round in 1..=rounds {
        let writers = ledger.write(&server).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(50..1000))).await;
        server.signal("STOP");
        // From here on nothing more is acknowledged, but for what is on its way to the writers: they may know more by the time
        // of the check, and that must be there as well, for it was sent before the cut.
        let copy = disk.copy();
        server.kill();
        for writer in writers {
            writer.await.unwrap_or_else(|error| panic!("round {round} of seed {seed}: {error}"));
        }
        drop(server);
        disk = disk.replaced_by(copy);
        server = Server::start(&disk.mounted(), settings.clone()).await;
        ledger.check(&server, ledger.promised()).await;
    }
    say(&format!("power cut: {rounds} rounds of seed {seed}, {} transactions acknowledged, none lost", ledger.acknowledged()));
}

/// The test itself is tested: the cut takes what was written and not synced, and nothing else. The kernel may write early when
/// the machine is busy or somebody calls sync, as every start of a server of another test does (sled runs the program of that
/// name); so one loss in some tries will do. What was synced must be there every time.
#[test]
fn a_cut_takes_what_was_not_synced() {
    let lost = (0..40).any(|_| {
        let disk = match Disk::new() {
            Ok(disk) => disk,
            Err(reason) => {
                say(&format!("power cut: SKIPPED, {reason}"));
                return true;
            }
        };
        write(&disk, "synced", true);
        write(&disk, "forgotten", false);
        let copy = disk.copy();
        let disk = disk.replaced_by(copy);
        assert_eq!(std::fs::read(disk.mounted().join("synced")).unwrap(), b"synced");
        std::fs::read(disk.mounted().join("forgotten")).unwrap_or_default().is_empty()
    });
    assert!(lost, "what was not synced survives every cut: this test could not show a missing fsync");
}

fn write(disk: &Disk, name: &str, synced: bool) {
    let mut file = File::create(disk.mounted().join(name)).unwrap();
    file.write_all(name.as_bytes()).unwrap();
    if synced {
        file.sync_all().unwrap();
        File::open(disk.mounted()).unwrap().sync_all().unwrap();
    }
}

/// A file system in a file on the RAM disk. Unmounted and removed when dropped.
struct Disk {
    folder: tempfile::TempDir,
    mounted: bool,
}

impl Disk {
    /// Empty; an error says what is missing here.
    fn new() -> Result<Disk, String> {
        let mounts = std::fs::read_to_string("/proc/mounts").map_err(|error| error.to_string())?;
        let is_ram = |line: &str| line.split(' ').nth(1) == Some(RAM_DISK) && line.split(' ').nth(2) == Some("tmpfs");
        if !mounts.lines().any(is_ram) {
            return Err(format!("{RAM_DISK} is no RAM disk"));
        }
        let folder = tempfile::tempdir_in(RAM_DISK).map_err(|error| error.to_string())?;
        let mut disk = Disk { folder, mounted: false };
        command("truncate", &["-s", DISK_SIZE, &disk.image()])?;
        command("mkfs.ext4", &["-q", "-F", &disk.image()])?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> String {
        self.folder.path().join("image").to_string_lossy().into_owned()
    }

    fn mounted(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn mount(&mut self) -> Result<(), String> {
        std::fs::create_dir_all(self.mounted()).map_err(|error| error.to_string())?;
        // A long commit interval: the file system must not sync on its own what the server forgot to.
        command("mount", &["-o", "loop,commit=600", &self.image(), &self.mounted().to_string_lossy()])?;
        self.mounted = true;
        Ok(())
    }

    /// The disk as it is at this moment. The kernel may be writing; a copy that differs from the image afterwards is of no
    /// one moment, and is made again.
    fn copy(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir_in(RAM_DISK).unwrap();
        let image = folder.path().join("image").to_string_lossy().into_owned();
        for _ in 0..20 {
            command("cp", &["--sparse=always", &self.image(), &image]).unwrap();
            if same(Path::new(&self.image()), Path::new(&image)) {
                return folder;
            }
        }
        panic!("the disk does not come to rest");
    }

    /// After the cut: the copy is the disk.
    fn replaced_by(self, copy: tempfile::TempDir) -> Disk {
        drop(self);
        let mut disk = Disk { folder: copy, mounted: false };
        disk.mount().unwrap_or_else(|error| panic!("the disk can't be mounted after the cut: {error}"));
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let mounted = self.mounted().to_string_lossy().into_owned();
            // The killed server may hold it for a moment longer.
            let freed = (0..50).any(|_| {
                let done = command("umount", &[&mounted]).is_ok();
                if !done {
                    std::thread::sleep(Duration::from_millis(100));
                }
                done
            });
            if !freed {
                say(&format!("power cut: {mounted} could not be unmounted"));
            }
        }
    }
}

fn same(a: &Path, b: &Path) -> bool {
    Command::new("cmp").arg("-s").arg(a).arg(b).status().is_ok_and(|status| status.success())
}

/// Run a program of the system; its complaint is the error.
pub fn command(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
