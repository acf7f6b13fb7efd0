//! What a RUN step sees, and what it leaves in the image.

use crate::support::Place;
use crate::tests;

tests![a_step_cannot_open_the_hosts_disks];

/// Row 20 of the threat register: Docker's capabilities include CAP_MKNOD.
fn a_step_cannot_open_the_hosts_disks() {
    let disk = fs_err::read_to_string("/proc/partitions").unwrap();
    let Some(words) = disk.lines().nth(2).map(|line| line.split_whitespace().collect::<Vec<_>>())
    else {
        return eprintln!("skipped: there is no disk");
    };
    let (major, minor) = (words[0], words[1]);
    let place = Place::new();
    let engine = place.engine();
    let script = format!(
        "for at in /disk /dev/disk /dev/shm/disk /dev/pts/disk /dev/mqueue/disk /cache/disk; do \
           if mknod $at b {major} {minor} && head -c 1 $at > /dev/null; then echo $at; exit 1; fi; \
         done; true"
    );
    let events = crate::support::Events::default();
    let request = place.request(&format!("RUN --mount=type=cache,target=/cache {script}; ls -la /disk; cat /proc/self/status | grep Cap\n"));
    engine.build(&request, &events, &rbuild::CancelToken::default()).unwrap();
    for e in events.take() {
        if let rbuild::Event::StepOutput { bytes, .. } = e {
            eprintln!("{}", String::from_utf8_lossy(&bytes));
        }
    }
}
