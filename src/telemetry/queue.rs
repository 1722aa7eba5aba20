//! Lines on their way out: a queue before one thread that writes them, so that nobody who has something to say waits for
//! whoever reads it. A pipe that is full or closed, or a disk that is full, costs lines and no requests.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use prometheus::IntCounter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written; one more is lost.
pub(super) const LINES_MAX: usize = 4_096;

/// The same in bytes, all lines together.
const BYTES_MAX: usize = 4 << 20;

/// What is written at once, in bytes, and a line more.
const PIECE: usize = 64 * 1024;

/// How long the end waits for what is still to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Where lines are put. Each `write` is one line, as the subscriber writes them.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    lines: SyncSender<Vec<u8>>,
    waiting: Arc<Waiting>,
    lost: IntCounter,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Mutex<usize>,
    written: Condvar,
}

impl Queue {
    /// Starts the thread, which ends when no queue is left. `lost` counts the lines that are not written.
    pub(super) fn before(
        output: impl Write + Send + 'static,
        lost: IntCounter,
    ) -> io::Result<Self> {
        let (lines, queued) = sync_channel(LINES_MAX);
        let queue = Self {
            lines,
            waiting: Arc::default(),
            lost: lost.clone(),
        };
        let waiting = queue.waiting.clone();
        let writing = move || write_all(&queued, output, &waiting, &lost);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(writing)?;
        Ok(queue)
    }

    fn put(&self, line: &[u8]) {
        let admitted = self.waiting.admit(line.len());
        if admitted && self.lines.try_send(line.to_vec()).is_ok() {
            return;
        }
        if admitted {
            self.waiting.leave(line.len());
        }
        self.lost.inc();
    }
}

/// Waits at its end until what was said before is written, a second at most.
#[must_use = "lines that are still to be written would be lost"]
#[derive(Debug)]
pub(super) struct Flush(pub(super) Queue);

impl Drop for Flush {
    fn drop(&mut self) {
        let Waiting { bytes, written } = &*self.0.waiting;
        let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = written.wait_timeout_while(bytes, FLUSH_MAX, |bytes| *bytes > 0);
    }
}

impl Waiting {
    fn admit(&self, line: usize) -> bool {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = *bytes + line <= BYTES_MAX;
        *bytes += if admitted { line } else { 0 };
        admitted
    }

    fn leave(&self, written: usize) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *bytes -= written;
        self.written.notify_all();
    }
}

fn write_all(
    lines: &Receiver<Vec<u8>>,
    mut output: impl Write,
    waiting: &Waiting,
    lost: &IntCounter,
) {
    while let Ok(mut piece) = lines.recv() {
        let mut count = 1;
        while piece.len() < PIECE
            && let Ok(line) = lines.try_recv()
        {
            piece.extend_from_slice(&line);
            count += 1;
        }
        if output
            .write_all(&piece)
            .and_then(|()| output.flush())
            .is_err()
        {
            lost.inc_by(count);
        }
        waiting.leave(piece.len());
    }
}

impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing while it is held, and then everything; or fails.
    #[derive(Clone, Default)]
    struct Output {
        taken: Arc<Mutex<Vec<u8>>>,
        fails: bool,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut taken = self.taken.lock().unwrap();
            if self.fails {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            taken.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lost() -> IntCounter {
        IntCounter::new("lost", "lost").unwrap()
    }

    fn line(number: usize, length: usize) -> String {
        format!("{number:0length$}\n")
    }

    /// Catches a line that waits for its reader, one that is lost without being counted, and lines that are mixed up.
    #[test]
    fn a_blocked_output_costs_lines_that_are_counted_and_nobody_waits() {
        for length in [20, 8_000] {
            let output = Output::default();
            let lost = lost();
            let queue = Queue::before(output.clone(), lost.clone()).unwrap();
            let held = output.taken.lock().unwrap();
            const SAID: usize = 3 * LINES_MAX;
            for number in 0..SAID {
                (&queue).write_all(line(number, length).as_bytes()).unwrap();
            }
            // What is left is at most what may wait, and the piece that is being written.
            let kept = SAID - lost.get() as usize;
            let most = LINES_MAX.min(BYTES_MAX / length);
            assert!(
                kept >= most / 2 && kept <= most + 1 + PIECE / length,
                "{kept} of {length} B"
            );
            drop(held);
            drop(Flush(queue));
            let taken = output.taken.lock().unwrap();
            let taken: Vec<_> = taken.split_inclusive(|byte| *byte == b'\n').collect();
            assert_eq!(taken.len(), kept);
            // Each whole, in their order. That the thread begins late may cost some between others.
            assert!(taken.iter().all(|line| line.len() == length + 1) && taken.is_sorted());
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let lost = lost();
        let output = Output {
            fails: true,
            ..Output::default()
        };
        let queue = Queue::before(output, lost.clone()).unwrap();
        for number in 0..100 {
            (&queue).write_all(line(number, 8).as_bytes()).unwrap();
        }
        drop(Flush(queue));
        assert_eq!(lost.get(), 100);
    }

    #[test]
    fn the_end_waits_for_a_blocked_output_only_so_long() {
        let output = Output::default();
        let queue = Queue::before(output.clone(), lost()).unwrap();
        let _held = output.taken.lock().unwrap();
        (&queue).write_all(b"x\n").unwrap();
        drop(Flush(queue));
    }
}
