//! The contract: what every backend promises, clause by clause. This module holds no code.
//!
//! *MUST* binds every backend. *MAY* is left open, and a program must not rely on it. Each clause
//! has at least one case in the conformance suite (feature `conformance`). The case's name begins
//! with the clause's number, and a failing case prints the clause from this page.
//!
//! *Ready*: an I/O call would not block, end of file and errors included. *Direction*: READABLE,
//! WRITABLE or PRIORITY.
//!
//! # R: registration
//!
//! - **R1** `register`, `modify` and `rearm` MUST check present readiness. A source that is already
//!   ready is reported by the next wait, in every mode. Why: otherwise a program must attempt its
//!   I/O before it may wait.
//! - **R2** A file descriptor that is already registered MUST be refused with `AlreadyExists`, and
//!   the first registration is unchanged. A duplicate of it (dup(2)) is a separate source, and both
//!   work. Why: two answers for one descriptor cannot both be right.
//! - **R3** `modify` MUST replace token, interest and mode together. If it fails, the old
//!   registration stays in force.
//! - **R4** In registration calls `NotFound` MUST mean an unknown or stale key and nothing else.
//!   For another poller's key the error says so. A key never names another registration, made later
//!   or in another poller. A slot whose generation would wrap is retired.
//! - **R5** `deregister` MUST be a barrier:
//!   - No later wait reports that registration, whatever the kernel had queued.
//!   - The kernel no longer holds the file: after the last drop the peer sees end of file at once.
//!   - Its operations are cancelled, and each still completes, in submission order.
//!   - An operation that cannot be interrupted (a disk is busy with it) holds the file until it is
//!     done.
//! - **R6** Dropping the poller MUST release everything: its own descriptors and every source. (A
//!   `Waker` that outlives it keeps the one descriptor it writes to.)
//! - **R7** `register` MUST refuse with `EBADF` a descriptor that is not open, or is open with
//!   `O_PATH`. Why: select(2) and poll(2) would always report it as ready.
//! - **R8** An empty interest is legal and MUST be silent, hang-up and errors included.
//! - **R9** Any file descriptor the process can have MUST work, including those above 1023.
//! - **R10** `rearm` and `drained` MUST refuse directions outside the registered interest with
//!   `InvalidInput`. So do `register` and `modify` for bits that are no direction. `rearm` arms
//!   exactly the directions it names on a one-shot registration, and checks a level one again.
//!   `drained` has an effect in edge mode only.
//!
//! # M: watching and operations
//!
//! - **M1** A direction of a source is either watched or used by operations. An operation in a
//!   direction of the interest MUST be refused with `InvalidInput`. So is `modify` to an interest
//!   that contains a direction with unfinished operations. The operations of each direction are:
//!   - READABLE: reads, accepts, splices from the source, and shutting down reading.
//!   - WRITABLE: writes, connects, splices to the source, shutting down writing, and shutting down
//!     both, which waits for earlier writes.
//!   - None: reads and writes at an offset of a file, `fsync` and `fdatasync`.
//!
//! # L: level
//!
//! - **L1** Each wait MUST report every source that is ready for its interest, again and again, as
//!   far as capacity allows (Q1).
//! - **L2** A wait MUST NOT report a source that is not ready, even if it was ready before the wait
//!   began.
//!
//! # O: one-shot
//!
//! - **O1** After one event a source MUST be silent until `modify` or `rearm`, in both directions
//!   and for hang-up too. Then it reports again, at once if it is ready.
//!
//! # E: edge
//!
//! Mechanisms differ in what they call an edge. The contract is therefore a sandwich: what must be
//! reported, what may be, and what must not.
//!
//! - **E1** A direction that is found ready MUST be reported if, since its last report, one of
//!   these calls named it:
//!   - `register`, `modify` or `rearm`;
//!   - a truthful `drained`: an I/O call had returned `WouldBlock`, or had been short as E4 says,
//!     and the file was not ready at that moment.
//! - **E2** A source MAY be reported again when something new happens to it, in either direction.
//!   Activity during a wait MAY be reported by that wait and again by the next.
//! - **E3** A source MUST NOT be reported if, since its last event, none of these has happened:
//!   - a wake-up on the file (a TCP acknowledgement is one);
//!   - a `register`, `modify`, `rearm` or `drained`;
//!   - an operation in the other direction began or ceased to wait;
//!   - a hang-up or error that was reported has passed.
//!
//!   (A kernel queue that overflowed, or a foreign `SIGIO` to the thread of a SIGIO poller, makes
//!   the poller check every source again. That may repeat a report.) Why: a reader that did not
//!   finish must not be woken endlessly.
//! - **E4** After `WouldBlock` a program calls `drained` (`try_io` does), and the next readiness
//!   MUST be reported. On a stream a read or write that moved fewer bytes than requested counts as
//!   `WouldBlock`. Exceptions, where more may remain:
//!   - an event with READ_CLOSED or ERROR (data and end are one edge: read on to the end);
//!   - urgent data;
//!   - kernel TLS;
//!   - unix sockets with passed files or credentials;
//!   - pipes in packet mode;
//!   - `SO_RCVLOWAT`;
//!   - lines of terminals.
//!
//!   `drained` after any other call is allowed, and MUST NOT suppress a report that would have
//!   come. To a program that does not call it, backends without native edges MAY report nothing
//!   more. The kernel does not let them distinguish "drained and refilled" from "not drained".
//! - **E5** The first HUP, RDHUP or ERR since a direction's last report MUST be reported, once, if
//!   H3 gives it a meaning for the direction. This holds even if the direction was reported and not
//!   drained. While the hang-up or error lasts, `rearm` and `modify` have it reported again, and
//!   `drained` does not. Why: a writer whose pipe still has space gets no other sign that the
//!   reader has closed.
//!
//! # H: flags
//!
//! - **H1** Flags MUST have been true at some moment inside the wait that returns them. Hints from
//!   the kernel are verified first; if nothing in them is true the wait goes on.
//! - **H2** End of file, hang-up and errors MUST make the requested directions ready, even where
//!   the kernel does not say so. A pipe whose writer has gone is HUP without IN. A full pipe whose
//!   reader has gone is ERR without OUT.
//! - **H3** The bits of poll(2) MUST mean the same on every backend. The closed flags are
//!   advisory: if ERR and IN are set, a writer's WRITE_CLOSED depends on whether IN was polled for.
//!   - IN is READABLE, OUT is WRITABLE and PRI is PRIORITY, each only if requested. RDNORM and
//!     RDBAND count as IN, WRNORM and WRBAND as OUT.
//!   - RDHUP is READABLE and READ_CLOSED to readers, and READ_CLOSED to PRIORITY.
//!   - HUP means the same as RDHUP, and is also WRITABLE and WRITE_CLOSED to writers.
//!   - ERR is READABLE and ERROR to readers, WRITABLE and ERROR to writers, and ERROR to PRIORITY.
//!     To writers it is also WRITE_CLOSED, unless IN was polled for and is set.
//! - **H4** A wait MUST report a source once, with everything merged.
//!
//! # T: time
//!
//! - **T1** A timeout of zero MUST collect everything that is ready now, up to the capacity (Q1),
//!   and never block.
//! - **T2** A timeout of `None` MUST block until there is an event or a wake.
//! - **T3** A wait MUST NOT return empty before its timeout unless it was woken. Timeouts have
//!   nanosecond resolution, and are rounded up where a kernel interface is coarser.
//! - **T4** `Duration::MAX` MUST wait without limit in effect, and one nanosecond MUST end.
//! - **T5** `EINTR` MUST NOT surface: a wait that a signal interrupts goes on to the same deadline.
//! - **T6** Timeouts MUST be measured on the monotonic clock, so that a step of the wall clock
//!   changes nothing.
//!
//! # Q: capacity
//!
//! - **Q1** A wait MUST NOT report more events than `Events` has capacity for. The rest is kept,
//!   and verified again before it is reported. A capacity of 0 is `InvalidInput`. (Polling some
//!   files, such as `/proc/self/mountinfo`, consumes their readiness, so the second poll finds
//!   nothing. Give `Events` capacity for such sources.)
//! - **Q2** If a source stays ready, the capacities of the successive waits that do not report it
//!   MUST add up to less than the number of registered sources. Why: no source may starve, and none
//!   is favoured for its low descriptor.
//! - **Q3** Completions that a program does not take MUST stay in `Events`, in order, and count
//!   against its capacity. A wait does not block while there are any.
//!
//! # W: wake
//!
//! - **W1** A wake before or during a wait MUST end it. Wakes are sticky, coalesce, and are never
//!   lost.
//! - **W2** A wake MUST NOT be an event. It shows in `Events::woken`, takes no capacity, and is
//!   returned together with the events.
//! - **W3** A waker MUST be harmless after its poller was dropped, and safe to use in a signal
//!   handler, with errno preserved.
//!
//! # F: files
//!
//! - **F1** Regular files, directories and devices like `/dev/null` MUST be always ready, on every
//!   backend, so that standard input may be any of them.
//! - **F2** Operations on such files MUST do real work.
//!
//! # C: completion
//!
//! - **C1** Every operation that was accepted MUST complete exactly once and return its buffer,
//!   whatever the result. `transferred` counts the bytes that were moved, together with an error
//!   too. These are the bytes before a cancel, a deadline, a reset, or the end of the stream
//!   (`recv_exact`: `UnexpectedEof`). An operation with `skip_success` that succeeds entirely
//!   (every byte of its range was moved, or there are none) MUST end silently instead:
//!   - It has no completion, takes no capacity, and no wait returns for it.
//!   - Its buffer is returned to its pool or dropped, and its passed files are dropped, when the
//!     kernel no longer reads them. This is at the latest when the next wait returns.
//!   - Any other outcome completes as always: an error, with its `transferred`, or a short count of
//!     `send`, `send_msg`, `write` or `write_at`.
//!   - A completion of a later operation in the same order (C3) says that all silent ones before it
//!     are done.
//!   - A wait MUST NOT sleep while something waits for a silent operation that is done.
//! - **C2** The result MUST be that of the plain system call, and never `WouldBlock`, `EINTR` or
//!   `EINPROGRESS`.
//!   - Exceptions are `recv_exact` and `send_all`, which repeat the call until all bytes are moved.
//!   - A reset is reported to the reader: if a send or write on a stream fails with `ECONNRESET`
//!     while the first of the unfinished reads (C3) is a receive or read, the send completes with
//!     `EPIPE`. The receive completes with `ECONNRESET` when it comes to the end of the stream.
//!   - No operation raises `SIGPIPE` or `SIGXFSZ`. A write beyond `RLIMIT_FSIZE` is `EFBIG`, and no
//!     handler of that signal runs.
//!   - A read or write of a regular file or block device counts as one call, however many pieces it
//!     is done in. At the file position, which other descriptors may share, it is done in one.
//!   - A connect that has begun is never repeated. If the program shuts its socket down meanwhile,
//!     it fails and makes no connection.
//! - **C3** The operations of a source in each of these orders MUST take effect and complete in
//!   submission order. Cancelled and timed-out operations are excepted. Why: with io_uring alone
//!   the bytes of a stream get out of order.
//!   - Reads: accept, accept_multi, recv, recv_exact, recv_multi, recv_from, recv_msg, read, splice
//!     from the source.
//!   - Writes: connect, send, send_all, send_to, send_msg, write, splice to the source, shutdown of
//!     writing.
//!   - All of them, in files where reading and writing share a position: regular files and block
//!     devices.
//!   - In no order, so that they MAY run concurrently: those at an offset of a file (read_at,
//!     write_at, the vectored forms), fsync, fdatasync, open, timeout and nop.
//!
//!   Shutting down reading waits for nothing.
//! - **C4** Source and buffer MUST belong to the poller until the operation completes. Neither can
//!   be closed, freed or changed while the kernel uses it.
//! - **C5** Received bytes MUST be appended to the buffer, at most as many as were requested.
//!   Requesting none is `InvalidInput`, and so is requesting more than a pool's buffer has space
//!   for, which does not grow. A result of 0 bytes is therefore the end of the stream or file, or
//!   an empty datagram.
//! - **C6** Accepted sockets and opened files MUST be close-on-exec and non-blocking (which means
//!   nothing to a regular file). Files received with a message MUST be close-on-exec.
//! - **C7** No operation may block the thread, on blocking files either.
//!   - Some calls have no flag for that: accept, connect, and calls on terminals, FIFOs, inotify,
//!     splice of sockets and some more. There the first operation MAY set `O_NONBLOCK` on the open
//!     file description. `deregister` and the drop of the poller restore it.
//!   - The flag is set again each time the source's operations run. If the program clears it
//!     meanwhile, one call of the poller may block.
//!   - For pipes, FIFOs and terminals (except masters of pseudo-terminals) the poller opens a
//!     description of its own instead, where it may. It closes that before `deregister` returns.
//!   - I/O that must wait for a disk is left to the mechanism or to a thread of the poller's pool
//!     (`set_max_threads`). I/O that memory can answer needs neither.
//! - **C8** An operation with many results (accept_multi, recv_multi) MUST deliver each in a
//!   completion with `more`, in order, and then one last without.
//!   - The last is `Ok` at the end of a stream, `ECANCELED` or `TimedOut` after a cancel or
//!     deadline, and otherwise the error.
//!   - `EMFILE` and similar errors end accept_multi. Pending connections stay in the listen queue,
//!     and it can be submitted again.
//!   - While its pool has no free buffer a recv_multi waits, at no cost. It resumes when a buffer
//!     is returned, from any thread.
//!   - Receives of one poller that wait for the same pool are served in FIFO order, one buffer
//!     each.
//!   - A wait MAY deliver a part of a source's results, so that other sources are served. The next
//!     wait delivers more without sleeping.
//!   - Nothing that arrived before a cancel or deadline is lost: it is a result before the last, or
//!     is still in the source.
//!
//! # X: cancel
//!
//! - **X1** An operation that is cancelled while it is queued behind another MUST complete with
//!   `ECANCELED`. One at the head of its queue completes with its real result or with `ECANCELED`,
//!   and then nothing was consumed beyond `transferred`. After a connect that was cancelled or
//!   timed out only `deregister` is defined.
//! - **X2** `cancel` MUST be `Ok` until the completion has been delivered, and `NotFound` from then
//!   on. It is `NotFound` for an operation that has ended silently, and for any other poller's.
//!   - Once `cancel` was `Ok`, or `deregister` or its deadline has begun to end an operation,
//!     `skip_success` is void. It completes with its real result, `ECANCELED` or `TimedOut`.
//!   - The completion need not come in the very next wait.
//!   - `deregister` first takes the results that kernel and threads have returned; `cancel` does
//!     not. An operation that `pending` counted before `deregister` may prove to have ended
//!     silently.
//! - **X3** An operation whose deadline passes MUST complete with `TimedOut`, or with its real
//!   result. `TimedOut` does not come before the deadline, and no wait blocks past the deadline.
//!
//! # D: drop
//!
//! - **D1** When the poller has been dropped, the kernel MUST NOT write to any buffer that was
//!   freed.
//!   - The drop waits for what cannot be interrupted, at most a second.
//!   - The buffer of an operation still in the kernel then is leaked, and counted by
//!     `leaked_buffers`. A buffer used by a thread is freed when the thread's call returns.
//!   - Pool buffers that the program holds are its own.
//! - **D2** No file descriptor may leak, whether of an accepted socket, an opened file, or one
//!   received with a message. If the program does not take it, it is closed with its completion,
//!   its `Events` or its poller.
//!
//! # P: process
//!
//! - **P1** In a forked child every call on an inherited poller that can fail MUST fail with an
//!   error that says so. Its wakers do nothing, and dropping it changes nothing for the parent. The
//!   child may make pollers of its own.
//! - **P2** Every descriptor the poller makes for itself MUST be close-on-exec and above 2, even if
//!   0 to 2 are free. Why: a daemon that has closed these may open others there at any time.
//! - **P3** A backend that uses signals MUST keep them to itself. They reach the poller's thread
//!   alone and never end the process. The same signal from another sender is no event. When the
//!   poller has been dropped, the thread's signal mask and the owner, signal and `O_ASYNC` of every
//!   file are as before. Commands prepared by `unblock_in_child` start with none of these signals
//!   blocked.
//! - **P4** A poller MUST NOT be `Send`: signals and rings belong to a thread. Its wakers are
//!   `Send` and `Sync`.
//! - **P5** Running out of descriptors, memory or limits MUST be an error that names the cause, or
//!   lead to a slower path; no event is lost by it.
//!
//! # Permitted differences
//!
//! An empty cell means that the backend meets the clause to the letter.
//!
//! | clause | epoll | poll | select | sigio | uring |
//! |---|---|---|---|---|---|
//! | E2 | reports again on new activity, and repeats a direction when the other one changes | reports a direction again only after `drained`, `rearm` or `modify`, for E5, and when a hang-up or error that it reported has passed | as poll | as epoll for what makes a pipe, inotify, or unix, TCP or UDP socket readable; as poll for WRITABLE and for other files | as epoll |
//! | R6 (a process that ends without dropping the poller: killed by a signal, exit(3)) | | | | | the kernel closes its files some 10 ms after wait(2) has reported the end. Until then bind(2) to the port of its listener is `EADDRINUSE`, with `SO_REUSEADDR` too. Make `SIGTERM` an event (signalfd(2)) and drop the poller, which frees the port at once; or let the successor retry bind(2); or set `SO_REUSEPORT` in both |
//! | H1, L2, E1, O1 (files whose readiness a poll consumes: some in procfs and cgroups, performance counters) | activity before `rearm`, `modify` or `register` is consumed by that call | | | | activity between two waits is reported by the next, even if the program has polled meanwhile. Activity on a one-shot source that was reported may be consumed before `rearm` |
//! | H3 | | | PRIORITY of such a file is reported without its ERROR, which the sets cannot show | | |
//! | L1, E1, O1 (files that get their wait queue after they were registered: `/dev/net/tun` before `TUNSETIFF`, which is ERR until then) | silent once the error has passed. Register such a file when it has its queue, or call `modify` or `rearm` then. (If that fails, with `ENOMEM` or `ENOSPC`, the file is unwatched until another call succeeds) | | | | as epoll, except for the failure |
//! | C2 | | | | an event that sends no signal, such as the program's own shutdown(2), ends a waiting operation up to half a second late | an accept that already waits when `RLIMIT_NOFILE` is lowered may still succeed. An urgent byte that arrives while a receive waits, and PRIORITY is not watched, may be lost with it |
//! | C8 | | | | | accept_multi accepts all pending connections at once, even beyond the capacity of `Events`, and so may reach `EMFILE` sooner |
//! | T1 | | | | | before Linux 6.1 a wait of zero may miss an event at the moment when another processor wakes the poller; a later wait reports it |
//! | T2 | | | a wait that already blocks may miss a hang-up of a source watched for WRITABLE alone, and a hang-up or error of one watched for PRIORITY alone; the next wait reports it | | |
//! | E5 | | a wait that already sleeps may miss a further end of a direction whose HUP or ERR was reported; the next wait reports it | a wait that already sleeps may miss an end of a direction that was reported and not drained, without limit if it has no timeout, unless READABLE of the same source is watched and was drained; the next wait reports it | as poll, for WRITABLE, and for files that send no signals | |
//! | E1 (a hang-up or error that was reported has passed without `WouldBlock`: the next writer of a FIFO, a connect after `register`) | | the wait that finds this when it begins arms the direction; one that already sleeps misses later activity. A program that waits without a timeout calls `rearm` after its connect, and keeps its own writer to a FIFO, which then has no end | as poll | as poll, for WRITABLE, and for files that send no signals | |
//! | L1, O1, E1, E5 | | | | readability that sends no signal is reported with the next signal, or after `rearm`: the program's own shutdown(2), and data that arrives while a blocking read of the same socket sleeps. An `F_SETFL` without `O_ASYNC` silences the file until `rearm` | |
//! | P3 | | | | urgent data on a registered socket sends `SIGURG` to the thread too, which is ignored unless the program handles it | |
//!
//! # Limits of the kernel
//!
//! On every backend, even where a clause says otherwise:
//!
//! | clause | what happens | remedy |
//! |---|---|---|
//! | R5, R6 | closing a socket with `SO_LINGER` blocks `deregister` and the drop of the poller until unsent data is acknowledged or the option's time has passed (not always on uring) | turn the option off before; or keep an `Arc` of the source and drop it on a thread that may block |
//! | L1, E4, O1 | a unix datagram socket without a peer is writable even while the receiver's queue is full, and sendto(2) returns `EAGAIN`. A program that sends again on readiness spins | connect the socket to the receiver, whose queue then counts; or submit `Op::send_to`, which tries again after 1 to 64 ms |
//! | C2 | reads of a terminal with `VMIN` 0 return 0, as at an end, whenever nothing was typed | set `VMIN` to 1; or wait until the terminal is READABLE, which takes a byte |
//! | C8 | an accept that has failed with `EMFILE`, `ENFILE`, `ENOBUFS` or `ENOMEM` leaves the connection in the queue, and fails again at once when it is submitted again | submit an `Op::timeout` instead, and the accept when that completes or a descriptor was closed |
//!
//! The output side of a pseudo-terminal may become ready late on backends other than select and
//! poll: the kernel wakes them late.
