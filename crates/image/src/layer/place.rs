//! Where an entry goes: finds, and makes where missing, the directory that holds its name.
//!
//! The walk goes name by name with held directories, so no name of a stranger is ever joined into
//! a path for the kernel. Links among the directories lead on inside the tree. With lower layers
//! given, a name that is absent here is looked up there: a link there leads on, a directory there
//! is made here with its attributes, because overlay shows those of the upper one.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rbuild_rooted::{FileKind, Follow, Metadata, NewDirs, Root, Time};

use super::content::{self, may_set};
use super::whiteout::{self, Opacity, OverlayXattrs};
use crate::error::ImageError;
use crate::tarball::Xattrs;

/// Links followed for one entry, as the kernel allows for one path.
const MAX_LINKS: usize = 40;
/// Directories entered for one entry; links with many `..` repeat parts of the walk.
const MAX_STEPS: usize = 20_000;
/// Mode of directories that no entry describes.
const MISSING_PARENT: u32 = 0o755;

/// The tree that is written, and what lies below it.
pub(super) struct Tree<'a> {
    pub(super) into: &'a Root,
    /// Read-only view of the lower layers merged.
    pub(super) lower: Option<&'a Root>,
    /// How opaque directories are marked; `None` when the tree is not an overlay's upper one.
    pub(super) overlay: Option<OverlayXattrs>,
    /// Owner of directories that no entry describes; `None` leaves what the kernel gives.
    pub(super) owner: Option<(u32, u32)>,
}

/// A directory of the tree.
pub(super) struct Place {
    pub(super) dir: Root,
    /// The same directory in the lower layers, if it is there and shows through.
    pub(super) lower: Option<Root>,
    /// Its path from the root, free of links.
    pub(super) real: Vec<OsString>,
    /// Whether a link was followed on the way.
    pub(super) through_links: bool,
    /// Directories made on the way, and the time that each is to have in the end.
    pub(super) made: Vec<(PathBuf, Time)>,
}

/// The names of a path, cleaned without looking at any tree, as Docker does: `..` takes the name
/// before it back and stops at the root.
pub(super) fn names(path: &[u8]) -> Vec<OsString> {
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            _ => names.push(OsStr::from_bytes(name).to_owned()),
        }
    }
    names
}

/// A path for messages and for calls of [`Root`].
pub(super) fn joined(names: &[OsString]) -> PathBuf {
    let mut path = PathBuf::from("/");
    path.extend(names);
    path
}

impl Tree<'_> {
    /// Walks to the directory `names`, making what is missing.
    pub(super) fn enter_all(&self, names: &[OsString]) -> Result<Place, ImageError> {
        let mut pending: VecDeque<OsString> = names.iter().cloned().collect();
        let mut place = self.top()?;
        let (mut links, mut steps) = (0, 0);
        // How many of the next names are from the targets of links.
        let mut of_links = 0_usize;
        while let Some(name) = pending.pop_front() {
            steps += 1;
            let of_link = of_links > 0;
            of_links = of_links.saturating_sub(1);
            if steps > MAX_STEPS {
                return Err(self.refused(names, "the path's links lead around for too long"));
            }
            if name == ".." {
                // Rare: only link targets still have them.
                let above = place.real.len().saturating_sub(1);
                for name in place.real[..above].iter().rev() {
                    pending.push_front(name.clone());
                    of_links += 1;
                }
                place = Place { through_links: true, made: place.made, ..self.top()? };
                continue;
            }
            let Some(target) = self.step(&mut place, &name, of_link)? else { continue };
            links += 1;
            if links > MAX_LINKS {
                return Err(self.refused(names, "too many links in the path"));
            }
            place.through_links = true;
            if target.as_bytes().starts_with(b"/") {
                place = Place { through_links: true, made: place.made, ..self.top()? };
            }
            for name in target.as_bytes().split(|byte| *byte == b'/').rev() {
                if !name.is_empty() && name != b"." {
                    pending.push_front(OsStr::from_bytes(name).to_owned());
                    of_links += 1;
                }
            }
        }
        Ok(place)
    }

    fn top(&self) -> Result<Place, ImageError> {
        let lower = match self.lower {
            Some(lower) if !self.is_opaque(self.into)? => Some(lower.try_clone()?),
            _ => None,
        };
        Ok(Place {
            dir: self.into.try_clone()?,
            lower,
            real: Vec::new(),
            through_links: false,
            made: Vec::new(),
        })
    }

    /// Goes into `name`, or gives the target of the link that it is. In a layer the target of a
    /// link is made when it is missing, as containerd does; in an archive of ADD it is not.
    fn step(
        &self,
        place: &mut Place,
        name: &OsStr,
        of_link: bool,
    ) -> Result<Option<OsString>, ImageError> {
        match place.dir.stat(name, Follow::No)? {
            Some(found) if found.is_symlink() => return Ok(Some(place.dir.read_link(name)?)),
            Some(found) if found.is_dir() => {
                let dir = place.dir.enter(name)?;
                let lower = match place.lower.take() {
                    Some(lower) if !self.is_opaque(&dir)? => below(&lower, name)?,
                    _ => None,
                };
                (place.dir, place.lower) = (dir, lower);
                place.real.push(name.to_owned());
                return Ok(None);
            }
            Some(found) if self.is_whiteout(&found) => {
                // Gone below, and now wanted again: what comes back is empty.
                place.dir.remove(name)?;
                self.make(place, name, None)?;
                self.make_opaque(&place.dir)?;
            }
            Some(found) => {
                let mut path = place.real.clone();
                path.push(name.to_owned());
                return Err(self.refused(&path, &format!("is a {}, not a directory", found.kind)));
            }
            None => {
                let lower = match &place.lower {
                    Some(lower) => lower.stat(name, Follow::No)?.map(|found| (lower, found)),
                    None => None,
                };
                match lower {
                    Some((lower, found)) if found.is_symlink() => {
                        return Ok(Some(lower.read_link(name)?));
                    }
                    Some((lower, found)) if found.is_dir() => {
                        let lower = lower.enter(name)?;
                        self.make(place, name, Some((lower, found)))?;
                    }
                    Some((_, found)) => {
                        let mut path = place.real.clone();
                        path.push(name.to_owned());
                        let problem = format!("is a {} in a lower layer", found.kind);
                        return Err(self.refused(&path, &problem));
                    }
                    None if of_link && self.overlay.is_none() => {
                        let mut path = place.real.clone();
                        path.push(name.to_owned());
                        let problem = "a link leads there, outside of what the archive is \
                                       unpacked to or to nothing: no such file or directory";
                        return Err(self.refused(&path, problem));
                    }
                    None => self.make(place, name, None)?,
                }
            }
        }
        Ok(None)
    }

    /// Makes a directory that no entry describes (so far) and goes into it.
    fn make(
        &self,
        place: &mut Place,
        name: &OsStr,
        lower: Option<(Root, Metadata)>,
    ) -> Result<(), ImageError> {
        let new = match &lower {
            // Without rights over owners there are none to copy.
            Some((_, found)) if self.owner.is_some() => {
                NewDirs { mode: found.mode, owner: Some((found.uid, found.gid)) }
            }
            Some((_, found)) => NewDirs { mode: found.mode, owner: None },
            None => NewDirs { mode: MISSING_PARENT, owner: self.owner },
        };
        place.dir.create_dir(name, new)?;
        let dir = place.dir.enter(name)?;
        if let Some((lower, _)) = &lower {
            copy_xattrs(lower, &dir)?;
        }
        place.real.push(name.to_owned());
        let mtime = lower.as_ref().map_or(Time::default(), |(_, found)| found.mtime);
        place.made.push((joined(&place.real), mtime));
        place.dir = dir;
        place.lower = lower.map(|(lower, _)| lower);
        Ok(())
    }

    /// Whether this is overlay's mark for something deleted.
    pub(super) fn is_whiteout(&self, found: &Metadata) -> bool {
        self.overlay.is_some() && found.kind == FileKind::CharDevice && found.rdev == 0
    }

    fn is_opaque(&self, dir: &Root) -> Result<bool, ImageError> {
        // Without lower layers nobody asks what shows through.
        let asked = self.overlay.is_some() && self.lower.is_some();
        Ok(asked && whiteout::opacity(dir)? == Opacity::Opaque)
    }

    /// Marks a directory so that nothing below shows through.
    pub(super) fn make_opaque(&self, dir: &Root) -> Result<(), ImageError> {
        if let Some(form) = self.overlay {
            dir.set_xattr("", form.opaque(), b"y")?;
        }
        Ok(())
    }

    /// Brings a file of the lower layers up under the same name, as overlay does before it changes
    /// one.
    pub(super) fn copy_up(
        &self,
        place: &Place,
        name: &OsStr,
        copier: &mut content::Copier,
    ) -> Result<bool, ImageError> {
        let Some(lower) = &place.lower else { return Ok(false) };
        let Some(found) = lower.stat(name, Follow::No)? else { return Ok(false) };
        let owner = self.owner.map(|_| (found.uid, found.gid));
        let shown = joined(&[&place.real[..], &[name.to_owned()]].concat());
        let shown = shown.display().to_string();
        match found.kind {
            FileKind::Regular => {
                let mut from = lower.open_file(name, Follow::No)?;
                let mut to = place.dir.create_file(name, 0o600)?;
                copier.copy(&mut from, &mut to, &shown)?;
                let xattrs = xattrs_of(lower, name)?;
                content::dress(&to, owner, found.mode, &xattrs, found.mtime)
                    .map_err(|errno| ImageError::write(shown)(errno.into()))?;
            }
            FileKind::Symlink => {
                place.dir.symlink(lower.read_link(name)?, name)?;
                if let Some((uid, gid)) = owner {
                    place.dir.set_owner(name, uid, gid)?;
                }
                place.dir.set_times(name, found.mtime, found.mtime)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn refused(&self, names: &[OsString], problem: &str) -> ImageError {
        ImageError::archive(joined(names).as_os_str().as_bytes(), problem)
    }
}

/// The directory `name`, if it is one.
fn below(dir: &Root, name: &OsStr) -> Result<Option<Root>, ImageError> {
    match dir.stat(name, Follow::No)? {
        Some(found) if found.is_dir() => Ok(Some(dir.enter(name)?)),
        _ => Ok(None),
    }
}

fn copy_xattrs(from: &Root, to: &Root) -> Result<(), ImageError> {
    for (name, value) in xattrs_of(from, OsStr::new(""))? {
        if let Ok(name) = std::str::from_utf8(&name) {
            to.set_xattr("", name, &value)?;
        }
    }
    Ok(())
}

fn xattrs_of(dir: &Root, name: &OsStr) -> Result<Xattrs, ImageError> {
    let mut found = Vec::new();
    for attribute in dir.list_xattrs(name)? {
        if let Some(text) = attribute.to_str().filter(|text| may_set(text.as_bytes()))
            && let Some(value) = dir.get_xattr(name, text)?
        {
            found.push((attribute.as_bytes().to_vec(), value));
        }
    }
    Ok(found)
}
