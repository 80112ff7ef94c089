//! The size of a batch after the last one.

use super::*;

#[test]
fn batch_size_follows_bytes_per_report() {
    let mut batch = Batch::default();
    assert_eq!(batch.size(), 32, "the default");
    for (reports, bytes, size) in [
        (64, 64 * 64, 32),
        (10, 10 * 4096, 32),
        (10, 10 * 8192, 16),
        (7, 7 * 16384, 8),
        (1, 1 << 20, 8),
        // A listener, or no reports.
        (3, 0, 32),
        (0, 0, 32),
    ] {
        batch.adapt(reports, bytes);
        assert_eq!(batch.size(), size, "{bytes} bytes by {reports} reports");
    }
}
