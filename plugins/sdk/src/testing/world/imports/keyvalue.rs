//! Key-value entries, counters and places of a case.

use crate::keyvalue::{Counted, KeyvalueError, Place};
use crate::testing::world::{World, with};

/// The value of a key; `None` if it does not exist. Needs read access to the bucket.
pub fn get(bucket: &str, key: &str) -> Result<Option<Vec<u8>>, KeyvalueError> {
    with(|world| {
        world.requests.bucket(bucket, "read").map_err(KeyvalueError::Denied)?;
        Ok(world.facts.get(&(bucket.to_owned(), key.to_owned())).cloned())
    })
}

/// Sets the value of a key, optionally for `ttl_ms` milliseconds. Needs write access to the bucket.
pub fn set(bucket: &str, key: &str, value: &[u8], _ttl_ms: Option<u64>) -> Result<(), KeyvalueError> {
    write(bucket, |world| {
        world.facts.insert((bucket.to_owned(), key.to_owned()), value.to_owned());
        Ok(())
    })
}

/// Deletes a key, which need not exist. Needs write access to the bucket.
pub fn delete(bucket: &str, key: &str) -> Result<(), KeyvalueError> {
    write(bucket, |world| {
        world.facts.remove(&(bucket.to_owned(), key.to_owned()));
        world.tokens.retain(|(of, under, _), _| (of.as_str(), under.as_str()) != (bucket, key));
        world.places.remove(&(bucket.to_owned(), key.to_owned()));
        Ok(())
    })
}

/// Adds to a counter and returns it. With `once`, a token counts once. Needs write access to the bucket.
pub fn increment(
    bucket: &str,
    key: &str,
    by: i64,
    _ttl_ms: Option<u64>,
    once: Option<&str>,
) -> Result<i64, KeyvalueError> {
    write(bucket, |world| Ok(count(world, bucket, key, by, once)?.total))
}

/// Adds once for each token and returns its number. Needs write access to the bucket.
pub fn count_once(
    bucket: &str,
    key: &str,
    token: &str,
    by: i64,
    _ttl_ms: Option<u64>,
) -> Result<Counted, KeyvalueError> {
    write(bucket, |world| count(world, bucket, key, by, Some(token)))
}

/// Takes one of `limit` places within the last `window_ms`. Needs write access to the bucket.
pub fn take_place(bucket: &str, key: &str, token: &str, limit: u32, window_ms: u64) -> Result<Place, KeyvalueError> {
    write(bucket, |world| {
        if limit == 0 {
            return Err(KeyvalueError::Quota(format!("{bucket}/{key}: the limit of places must be at least 1")));
        }
        let place = (bucket.to_owned(), key.to_owned());
        if world.facts.contains_key(&place) && !world.places.contains_key(&place) {
            return Err(KeyvalueError::Unavailable(format!("{bucket}/{key} does not hold places")));
        }
        let now = u64::try_from(world.now.as_millisecond()).unwrap_or_default();
        let taken = world.places.entry(place.clone()).or_default();
        taken.retain(|_, at| *at > now.saturating_sub(window_ms));
        let is_granted = taken.contains_key(token) || taken.len() < limit as usize;
        if is_granted {
            taken.entry(token.to_owned()).or_insert(now);
        }
        let mut moments: Vec<u64> = taken.values().copied().collect();
        moments.sort_unstable();
        let blocking = moments.get(moments.len().saturating_sub(limit as usize));
        let next_free = blocking.filter(|_| !is_granted).map(|at| at + window_ms);
        let used = moments.len() as u32;
        world.facts.insert(place, used.to_string().into_bytes());
        Ok(Place { is_granted, used, next_free })
    })
}

/// Releases the place of a token, if it has one. Needs write access to the bucket.
pub fn give_place_back(bucket: &str, key: &str, token: &str) -> Result<(), KeyvalueError> {
    write(bucket, |world| {
        let place = (bucket.to_owned(), key.to_owned());
        let Some(taken) = world.places.get_mut(&place) else { return Ok(()) };
        taken.remove(token);
        match taken.len() {
            0 => drop((world.places.remove(&place), world.facts.remove(&place))),
            left => drop(world.facts.insert(place, left.to_string().into_bytes())),
        }
        Ok(())
    })
}

fn count(world: &mut World, bucket: &str, key: &str, by: i64, once: Option<&str>) -> Result<Counted, KeyvalueError> {
    let place = (bucket.to_owned(), key.to_owned());
    let held = world.facts.get(&place).map(|bytes| String::from_utf8_lossy(bytes).parse::<i64>());
    let no_counter = || KeyvalueError::Unavailable(format!("{bucket}/{key} is not a counter"));
    let before = held.transpose().map_err(|_| no_counter())?.unwrap_or(0);
    let token = once.map(|token| (place.0.clone(), place.1.clone(), token.to_owned()));
    if let Some(at) = token.as_ref().and_then(|token| world.tokens.get(token)) {
        return Ok(Counted { at: *at, total: before, first_time: false });
    }
    let total = before.saturating_add(by);
    if by != 0 || token.is_some() {
        world.facts.insert(place, total.to_string().into_bytes());
    }
    world.tokens.extend(token.map(|token| (token, total)));
    Ok(Counted { at: total, total, first_time: true })
}

fn write<T>(bucket: &str, change: impl FnOnce(&mut World) -> Result<T, KeyvalueError>) -> Result<T, KeyvalueError> {
    with(|world| {
        world.requests.bucket(bucket, "write").map_err(KeyvalueError::Denied)?;
        change(world)
    })
}
