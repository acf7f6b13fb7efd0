//! Which results are needed, so that nothing else runs.

use rbuild_plan::VertexId;
use rbuild_plan::op::Op;

use super::Coordinator;
use super::node::State;
use crate::error::SolveError;

impl Coordinator<'_, '_> {
    /// The result of `id` is needed, and so is what it is layered on.
    pub(super) fn want(&mut self, id: VertexId) -> Result<(), SolveError> {
        if std::mem::replace(&mut self.node_mut(id).wanted, true) {
            return Ok(());
        }
        self.pending.push_back(id);
        if self.node(id).state == State::Done { self.want_below(id) } else { Ok(()) }
    }

    /// A result is a layer on the result below it: all the way down, as far as it is there.
    pub(super) fn want_below(&mut self, id: VertexId) -> Result<(), SolveError> {
        let mut at = id;
        loop {
            if !self.settle_on_one(at)? {
                return Ok(());
            }
            if self.policy.layers && self.layers_of_targets[at.0] {
                self.pack(at)?;
            }
            if let Some(layer) = self.layer_of(at).filter(|_| self.is_unseen(at)) {
                self.want(layer)?;
            }
            let Some(root) = self.root_of(at) else { return Ok(()) };
            if !self.node(root).wanted {
                self.take_parent(at, root)?;
            }
            if std::mem::replace(&mut self.node_mut(root).wanted, true) {
                return Ok(());
            }
            self.pending.push_back(root);
            if self.node(root).state != State::Done {
                return Ok(());
            }
            at = root;
        }
    }

    /// A cached result was made on a tree that is still there, even when the record that led to
    /// the tree is not: to run that step again would put the result on another tree.
    pub(super) fn take_parent(&mut self, id: VertexId, root: VertexId) -> Result<(), SolveError> {
        let is_open = matches!(self.node(root).state, State::Asking | State::Missed);
        if !(is_open || self.is_unseen(root)) || self.node(root).fresh {
            return Ok(());
        }
        let snapshots = self.world.store.snapshots();
        let Some(snapshot) = &self.node(id).snapshot else { return Ok(()) };
        let parent = snapshots.meta(snapshot)?.and_then(|snapshot| snapshot.meta.parent);
        match parent {
            Some(parent) if snapshots.contains(&parent)? => {
                if self.is_unseen(root) {
                    self.prefer_local(root, parent);
                    return Ok(());
                }
                self.count_cached(root);
                self.done(root, Some(parent))
            }
            _ => Ok(()),
        }
    }

    /// The files of `id` are needed: its result, images below it unpacked, and layers that lie
    /// elsewhere brought. Says whether all is there.
    pub(super) fn need_files(&mut self, id: VertexId) -> Result<bool, SolveError> {
        loop {
            let (mut at, mut lowest) = (id, None);
            let bottom_is_there = loop {
                self.want(at)?;
                if self.node(at).state != State::Done {
                    return Ok(false);
                }
                if matches!(self.op(at), Op::Source(_)) {
                    if self.node(at).unpacked.is_none() && !self.node(at).unpacking {
                        self.unpack(at)?;
                    }
                    break self.node(at).unpacked.is_some();
                }
                if self.is_unseen(at) {
                    self.fetch(at)?;
                    lowest = Some(at);
                }
                match self.root_of(at) {
                    Some(root) => at = root,
                    None => break true,
                }
            };
            match lowest {
                None => return Ok(bottom_is_there),
                Some(lowest) if bottom_is_there && self.bring(lowest)? => {}
                Some(_) => return Ok(false),
            }
        }
    }
}
