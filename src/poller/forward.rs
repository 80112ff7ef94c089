//! [`Poller`] for boxes and references of pollers.

use super::{Capabilities, Poller, Source};
use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Op, OpId, Rejected};
use crate::statistics::Statistics;
use crate::waker::Waker;
use std::io;
use std::time::Duration;

/// Forwards every call, so that a `Box<dyn Poller>` is an `impl Poller`.
macro_rules! forward {
    ($handle:ty) => {
        impl<P: Poller + ?Sized> Poller for $handle {
            fn backend(&self) -> Backend {
                (**self).backend()
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn statistics(&self) -> Statistics {
                (**self).statistics()
            }

            fn set_max_threads(&mut self, max: usize) {
                (**self).set_max_threads(max);
            }

            fn pending(&self, key: Key) -> usize {
                (**self).pending(key)
            }

            fn register(
                &mut self,
                source: Source,
                token: Token,
                interest: Interest,
                mode: Mode,
            ) -> io::Result<Key> {
                (**self).register(source, token, interest, mode)
            }

            fn register_for_ops(&mut self, source: Source) -> io::Result<Key> {
                (**self).register_for_ops(source)
            }

            fn modify(
                &mut self,
                key: Key,
                token: Token,
                interest: Interest,
                mode: Mode,
            ) -> io::Result<()> {
                (**self).modify(key, token, interest, mode)
            }

            fn rearm(&mut self, key: Key, interest: Interest) -> io::Result<()> {
                (**self).rearm(key, interest)
            }

            fn drained(&mut self, key: Key, interest: Interest) -> io::Result<()> {
                (**self).drained(key, interest)
            }

            fn deregister(&mut self, key: Key) -> io::Result<()> {
                (**self).deregister(key)
            }

            fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
                (**self).wait(events, timeout)
            }

            fn submit(&mut self, op: Op, token: Token) -> Result<OpId, Rejected> {
                (**self).submit(op, token)
            }

            fn cancel(&mut self, id: OpId) -> io::Result<()> {
                (**self).cancel(id)
            }

            fn waker(&self) -> Waker {
                (**self).waker()
            }
        }
    };
}

forward!(Box<P>);
forward!(&mut P);
