//! The contract: what every backend promises, clause by clause. This module holds no code.
//!
//! *MUST* binds every backend; *MAY* is left open, and a program must not lean on it. Each clause has at least one case in the
//! conformance suite (feature `conformance`) whose name begins with its number; a failing case prints its clause from this page.
//!
//! *Ready*: an I/O call would not block, end of file and errors included. *Direction*: READABLE, WRITABLE or PRIORITY.
//!
//! # R: registration
//!
//! - **R1** `register`, `modify` and `rearm` MUST look at present readiness: a source that is ready already is reported by the next wait, in every mode. Why: else a program has to try its I/O before it may wait.
//! - **R2** A file number that is registered MUST be refused a second time with `AlreadyExists`, and the first registration is untouched. A duplicate of it (dup(2)) is another source and works beside it. Why: two answers for one number can't both be right.
//! - **R3** `modify` MUST replace token, interest and mode together. If it fails, the old registration stands.
//! - **R4** Among registration calls `NotFound` MUST mean an unknown or stale key and nothing else; of another poller's key it says so. A key never names another registration, made later or in another poller; a slot whose generation would wrap is retired.
//! - **R5** `deregister` MUST be a barrier: no later wait reports that registration, whatever the kernel had queued, and the kernel holds the file no longer, so that after the last drop the peer sees end of file at once. Its operations are cancelled, and each still completes, in the order of submission; one that can't be interrupted (a disk is at work) holds the file until it is done.
//! - **R6** Dropping the poller MUST release everything: its own files, and every source. (A `Waker` that lives on keeps the one file it writes to.)
//! - **R7** A number that is not open, or open with `O_PATH`, MUST be refused by `register` with `EBADF`. Why: select(2) and poll(2) would call it ready for ever.
//! - **R8** An empty interest is legal and MUST be silent, hang-up and errors included.
//! - **R9** Any file number the process can have MUST work, those beyond 1023 too.
//! - **R10** `rearm` and `drained` MUST refuse directions outside the registered interest with `InvalidInput`, and so do `register` and `modify` for bits that are no direction. `rearm` arms exactly the directions it names on a one-shot registration, and looks again on a level one; `drained` has an effect in edge mode only.
//!
//! # M: both
//!
//! - **M1** A direction of a source is watched or operated, not both: an operation in a direction that is in the interest MUST be refused with `InvalidInput`, and so is `modify` to an interest in which operations are under way. Reading is READABLE; writing, connecting and shutting down writing are WRITABLE; shutting down reading is READABLE; to shut down both waits for what is written, and is WRITABLE. A splice reads one source and writes the other; what is at an offset of a file, and `fsync` and `fdatasync`, is in no direction.
//!
//! # L: level
//!
//! - **L1** Each wait MUST report every source that is ready for its interest, again and again, as far as capacity goes (Q1).
//! - **L2** A wait MUST NOT report what is not ready, also if it was ready before the wait began.
//!
//! # O: one-shot
//!
//! - **O1** After one event a source MUST be silent, in both directions and for hang-up too, until `modify` or `rearm`. Then it reports again, at once if it is ready.
//!
//! # E: edge
//!
//! Mechanisms differ in what they call an edge, so this is a sandwich: what must be reported, what may be, and what must not.
//!
//! - **E1** A direction found ready MUST be reported if, since its last report, `register`, `modify`, `rearm` or a truthful `drained` (an I/O call had said `WouldBlock`, or had been short as E4 says, and the file was not ready at that moment) named it.
//! - **E2** A source MAY be reported again when something new happens to it, in either direction. News that come while a wait is under way MAY be told by that wait and again by the next.
//! - **E3** A source MUST NOT be reported when since its last event there was no wake-up on the file (a TCP acknowledgement is one) and no `register`, `modify`, `rearm` or `drained`, no operation in the other direction has begun or ceased to wait, and no hang-up or error that was reported has passed. (After a kernel queue overflowed, or somebody sent `SIGIO` to the thread of a SIGIO poller, every source is looked at again, which may repeat a report.) Why: a reader that did not finish must not be woken for ever.
//! - **E4** After `WouldBlock` a program calls `drained` (`try_io` does), and the next readiness MUST be reported. On a stream a read or write that moved fewer bytes than it was asked for counts as `WouldBlock`, but for: an event with READ_CLOSED or ERROR (data and end are one edge: read on to the end), urgent data, kernel TLS, unix sockets with passed files or credentials, pipes in packet mode, `SO_RCVLOWAT`, and lines of terminals, where more may be there. `drained` after any other call is allowed, and MUST NOT suppress a report that would have come. A program that does not call it MAY hear nothing more on backends without native edges: nothing the kernel shows them tells "drained and refilled" from "not drained".
//! - **E5** The first HUP, RDHUP or ERR (as far as H3 gives it a meaning for the direction) since a direction's last report MUST be reported, once, also where that direction was told and not drained. `rearm` and `modify` report it again; `drained` does not while it lasts. Why: a pipe writer that had room is told by nothing else that its reader has gone.
//!
//! # H: flags
//!
//! - **H1** Flags MUST have been true at some moment inside the wait that returns them. What the kernel only hinted at is verified first; if nothing of it is true the wait goes on.
//! - **H2** End of file, hang-up and errors MUST make the directions asked for ready, also where the kernel does not say so: a pipe whose writer has gone is HUP without IN, a full pipe whose reader has gone ERR without OUT.
//! - **H3** The bits of poll(2) MUST mean the same on every backend. IN is READABLE, OUT is WRITABLE, PRI is PRIORITY, each only if asked for (RDNORM and RDBAND count as IN, WRNORM and WRBAND as OUT). RDHUP: READABLE and READ_CLOSED to readers, READ_CLOSED to PRIORITY. HUP: the same, and WRITABLE and WRITE_CLOSED to writers. ERR: READABLE and ERROR to readers, WRITABLE and ERROR to writers (with WRITE_CLOSED, unless IN was looked for and is set), ERROR to PRIORITY. The closed flags are hints.
//! - **H4** A wait MUST report a source once, with everything merged.
//!
//! # T: time
//!
//! - **T1** A timeout of zero MUST collect everything that is ready now, and never block.
//! - **T2** A timeout of `None` MUST block until there is an event or a wake.
//! - **T3** A wait MUST NOT come back empty before its timeout unless it was woken. Timeouts are nanoseconds, and are rounded up where a kernel interface is coarser.
//! - **T4** `Duration::MAX` MUST wait without limit in effect, and one nanosecond MUST end.
//! - **T5** `EINTR` MUST NOT surface: a wait that a signal interrupts goes on to the same deadline.
//! - **T6** Timeouts MUST be measured on the monotonic clock, so that a step of the wall clock changes nothing.
//!
//! # Q: capacity
//!
//! - **Q1** A wait MUST NOT report more events than `Events` has room for; what is left over is kept, and verified again when its turn comes. (Where looking at a file uses its news up, as with `/proc/self/mountinfo`, the second look finds nothing: give `Events` room for such sources.) A capacity of 0 is `InvalidInput`.
//! - **Q2** A source that stays ready MUST be reported before the capacities of the waits that left it out add up to the number of registered sources. Why: no source may starve, and none is favoured for its low number.
//!
//! - **Q3** Completions that a program does not take MUST stay in `Events`, in order, and count against its capacity; a wait does not block while there are any.
//!
//! # W: wake
//!
//! - **W1** A wake before or during a wait MUST end it. Wakes are sticky, coalesce, and are never lost.
//! - **W2** A wake MUST NOT be an event: it shows in `Events::woken`, takes no capacity, and comes beside whatever is ready.
//! - **W3** A waker MUST be harmless after its poller has gone, and safe to use in a signal handler, with errno kept.
//!
//! # F: files
//!
//! - **F1** Regular files, directories and devices like `/dev/null` MUST be always ready, on every backend, so that a program does not mind where its standard input comes from.
//!
//! - **F2** Operations on such files MUST do real work.
//!
//! # C: completion
//!
//! - **C1** Every operation that was accepted MUST complete exactly once, and give its buffer back, whatever the result. `transferred` counts the bytes that were moved also beside an error: what came before a cancel, a deadline, a reset, or the end of the stream (`recv_exact`: `UnexpectedEof`). An operation with `skip_success` that succeeds entirely (every byte of its range was moved, or there are none) MUST end silently instead: no completion, no capacity, and no wait returns for it. Its buffer is back in its pool or dropped, and its passed files are dropped, when the kernel no longer reads them, at the latest when the next wait returns. Anything else completes as always: an error, with `transferred` beside it, or a short end of `send`, `send_msg`, `write` or `write_at`. A completion of a later operation of the same order (C3) says that all silent ones before it are over. A wait MUST NOT sleep while something waits for a silent operation that is over.
//! - **C2** The result MUST be what the plain system call would give, and never `WouldBlock`, `EINTR` or `EINPROGRESS`. No operation raises `SIGPIPE`, nor `SIGXFSZ`: beyond `RLIMIT_FSIZE` a write is `EFBIG`, and a handler of that signal is not run. A read or write of a regular file or block device is one call, in however many pieces it is done; at the position of the file, which other descriptors may share, it is done in one. A connect that has begun is never made again: if the program shuts its socket down meanwhile it fails, and makes no connection.
//! - **C3** The operations of a source that read (accept, accept_multi, recv, recv_exact, recv_multi, recv_from, recv_msg, read, splice from it) MUST take effect and complete in the order in which they were submitted, but for those that are stopped; and so those that write (connect, send, send_all, send_to, send_msg, write, splice to it, shutdown of writing). Shutting down reading waits for nothing. Where reading and writing share a position, in regular files and block devices, all are in one order. Why: else a stream gets out of order, as it does with io_uring alone. Those at an offset of a file (read_at, write_at, the vectored forms), fsync, fdatasync, open, timeout and nop are in no order, and MAY be at work side by side.
//! - **C4** Source and buffer MUST be the poller's until the operation completes, so that neither can be closed, freed or changed under the kernel.
//! - **C5** What is received MUST be appended to the buffer, at most as much as was asked for; to ask for nothing is `InvalidInput`, and so is to ask for more than a buffer of a pool has room for, which does not grow. So 0 bytes are the end of the stream or of the file, or an empty datagram.
//! - **C6** Accepted sockets and opened files MUST be close-on-exec and non-blocking (which means nothing to a regular file), and files that come with a message close-on-exec.
//! - **C7** No operation may block the thread, on blocking files either. Where a call has no flag for that (accept, connect; terminals, FIFOs, inotify, splice of sockets and some more), the first such operation MAY set `O_NONBLOCK` on the description; `deregister` and the drop of the poller restore it. Each turn of a source sets it again: a program that clears it meanwhile may find one call of the poller blocking. Of pipes, FIFOs and terminals (but for masters of pseudo-terminals) the poller opens a description of its own instead, where it may, and closes it before `deregister` returns. What has to wait for a disk is the mechanism's, or waits in one of a few threads of the poller's, unless memory has the answer.
//! - **C8** An operation with many results (accept_multi, recv_multi) MUST bring each in a completion with `more`, in order, and then one last without. That is `Ok` at the end of a stream, `ECANCELED` or `TimedOut` if it was stopped, and else the error: EMFILE and its like end accept_multi, who knocks stays in the queue, and it can be submitted again. While no buffer of its pool is at home a recv_multi waits, and costs nothing; it goes on when one comes home, whoever drops it and wherever; and of several of one poller that wait for one, whoever found none first comes first, and gets one. A wait MAY bring a part of what there is for a source, so that others have their turn; the next wait then brings more without sleeping. What has come before a stop is not lost: it is a result before the last, or is still in the source.
//!
//! # X: cancel
//!
//! - **X1** An operation that waits for its turn, and is cancelled, MUST complete with `ECANCELED`. The one whose turn it is completes with its real result, or with `ECANCELED`, and then nothing was consumed beyond `transferred`. After a connect that was stopped only `deregister` is defined.
//! - **X2** `cancel` MUST be `Ok` until the completion has been delivered, and `NotFound` from then on, for one that has ended silently, and for any other poller's. Once `cancel` was `Ok`, or `deregister` or its deadline has begun to end an operation, `skip_success` is void: it completes with its real result, `ECANCELED` or `TimedOut`. It need not show in the very next wait. Both calls first learn what the kernel has done: an operation that `pending` still counted may prove to have ended silently.
//! - **X3** An operation whose deadline passes MUST complete with `TimedOut`, or with its real result; not before the deadline, and not as a result of a wait that blocks longer.
//!
//! # D: drop
//!
//! - **D1** When the poller has been dropped, the kernel MUST NOT write to any buffer that was freed. What can't be interrupted is waited for, at most a second; then its buffer is never freed, and counted by `leaked_buffers`, or stays with the thread that waits for it until that is done. Buffers of a pool that a program has are its own.
//! - **D2** No file number may be lost: an accepted socket, an opened file, or one that came with a message, that nobody takes, is closed with its completion, its `Events` or its poller.
//!
//! # P: process
//!
//! - **P1** In a forked child every call on an inherited poller that can fail MUST fail with an error that says so, its wakers do nothing, and dropping it changes nothing for the parent. The child may make pollers of its own.
//! - **P2** Every file the poller makes for itself MUST be close-on-exec, and MUST have a number above 2, also where 0 to 2 are free. Why: a daemon that has closed these may open others there at any time.
//! - **P3** A backend that uses signals MUST keep them to itself: they reach the poller's thread alone, never end the process, and what somebody else sends under their number is no event. When the poller has gone, the thread's signal mask and the owner, signal and `O_ASYNC` of every file are as before. Commands prepared by `unblock_in_child` start with none of these signals blocked.
//! - **P4** A poller MUST NOT be `Send`: signals and rings belong to a thread. Its wakers are `Send` and `Sync`.
//! - **P5** Running out of files, memory or limits MUST be an error that names the cause, or a slower way; no event is lost by it.
//!
//! # Permitted differences
//!
//! An empty cell means that the backend meets the clause to the letter.
//!
//! | clause | epoll | poll | select | sigio | uring |
//! |---|---|---|---|---|---|
//! | E2 | reports again on new activity, and repeats a direction when the other one changes | never: it reports a direction again only after `drained`, `rearm` or `modify`, for E5, and when a hang-up or error that it reported has passed | as poll | as epoll for what makes a pipe, inotify, or unix, TCP or UDP socket readable; as poll for WRITABLE and for other files | as epoll |
//! | R6 (a process that ends without dropping the poller: killed by a signal, exit(3)) | | | | | the kernel closes its files some 10 ms after wait(2) has told of the end: until then bind(2) to the port of its listener is `EADDRINUSE`, with `SO_REUSEADDR` too. Let `SIGTERM` be an event (signalfd(2)) and drop the poller, which frees the port at once; let the successor try bind(2) again; or set `SO_REUSEPORT` in both |
//! | H1, L2, E1, O1 (files that forget their news when they are looked at: some in procfs and cgroups, performance counters) | what comes before `rearm`, `modify` or `register` is used up by it | | | | what comes between two waits is reported by the next, also if the program has looked meanwhile; what comes to a one-shot source that was reported may be used up before `rearm` |
//! | H3 | | | of such a file PRIORITY is told without the ERROR that is beside it, which the sets can't show | | |
//! | L1, E1, O1 (files that get their queue after they were registered: `/dev/net/tun` before `TUNSETIFF`, which is ERR until then) | silent once the error has gone. Register such a file when it has its queue, or call `modify` or `rearm` then. (If that fails, with `ENOMEM` or `ENOSPC`, the file is unwatched until another one succeeds) | | | | as epoll, but for the failure |
//! | C2 | | | | what sends no signal, such as the program's own shutdown(2), ends an operation that waits up to half a second late | an accept that waits already when `RLIMIT_NOFILE` is lowered may still succeed; an urgent byte that comes while a receive waits, and PRIORITY is not watched, may be gone with it |
//! | C8 | | | | | accept_multi takes all who knock in one call, also if `Events` has less room, and so may come to `EMFILE` sooner |
//! | T1 | | | | | before Linux 6.1, a wait of zero may overlook what happens at the very moment when another processor wakes the poller; a later one reports it |
//! | T2 | | | a wait that blocks already may overlook a hang-up of a source watched for WRITABLE alone, and a hang-up or error of one watched for PRIORITY alone; the next wait reports it | | |
//! | E5 | | a wait that sleeps already may overlook a further end of a direction whose HUP or ERR was reported; the next wait reports it | a wait that sleeps already may overlook an end of a direction that was reported and not drained, without limit if it has no timeout, unless READABLE of the same source is watched and was drained; the next wait reports it | as poll, of WRITABLE, and of files that send no signals | |
//! | E1 (a hang-up or error that was reported has passed without `WouldBlock`: the next writer of a FIFO, a connect after `register`) | | the direction is armed by the wait that finds so when it begins; one that sleeps already overlooks what comes then. A program that waits without a timeout calls `rearm` after its connect, and keeps a writer of its own to a FIFO, which then has no end | as poll | as poll, of WRITABLE, and of files that send no signals | |
//! | L1, O1, E1, E5 | | | | what makes a file readable without a signal is reported with the next signal, or after `rearm`: the program's own shutdown(2), and what arrives while somebody sleeps in a blocking read of the same socket. An `F_SETFL` without `O_ASYNC` silences the file until `rearm` | |
//! | P3 | | | | urgent data on a registered socket sends `SIGURG` to the thread too, which is ignored unless the program handles it | |
//!
//! # Limits of the kernel
//!
//! On every backend, also where a clause says otherwise:
//!
//! | clause | what happens | what a program does about it |
//! |---|---|---|
//! | R5, R6 | to close a socket with `SO_LINGER` blocks `deregister`, and the drop of the poller, until what was to be sent is acknowledged or the time of the option has passed (not always on uring) | it turns the option off before; or it keeps an `Arc` of the source, and drops that on a thread that may block |
//! | L1, E4, O1 | a unix datagram socket without a peer is writable also while the queue of the receiver is full, and sendto(2) says `EAGAIN`: whoever sends again when it is ready spins | it connects the socket to the receiver, and then the room in that queue counts; or it submits `Op::send_to`, which tries again after 1 to 64 ms |
//! | C2 | reads of a terminal with `VMIN` 0 say 0, as at an end, whenever nothing was typed | it sets `VMIN` to 1; or it waits until the terminal is READABLE, which takes a byte |
//! | C8 | an accept that has failed with `EMFILE`, `ENFILE`, `ENOBUFS` or `ENOMEM` leaves the connection in the queue, and fails again at once when it is submitted again | it submits an `Op::timeout` instead, and the accept when that completes or a descriptor was closed |
//!
//! The output side of a pseudo-terminal may become ready late on backends other than select and poll: the kernel wakes them
//! late.
