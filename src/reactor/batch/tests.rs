//! The size of a batch by what the last one has received.

use super::*;

#[test]
fn batch_receives_about_as_many_bytes_whatever_their_size() {
    let mut batch = Batch::default();
    assert_eq!(batch.size(), 32, "nothing is known yet");
    for (reports, bytes, size) in [
        (64, 64 * 64, 32),
        (10, 10 * 4096, 32),
        (10, 10 * 8192, 16),
        (7, 7 * 16384, 8),
        (1, 1 << 20, 8),
        // A listener, or no report at all.
        (3, 0, 32),
        (0, 0, 32),
    ] {
        batch.adapt(reports, bytes);
        assert_eq!(batch.size(), size, "{bytes} bytes by {reports} reports");
    }
}
