"""The Lua scripts of the Redis board. Each is one round trip, and takes effect whole or not at all.

All keys of a board have one hash tag, so a cluster keeps them together. Times are the
server's. Every script but the first expects that the board is still the one that was opened:
a server that lost its data has none, or one with another salt.
"""

from __future__ import annotations

OPEN = """
redis.call('HSETNX', KEYS[1], 'version', ARGV[1])
redis.call('HSETNX', KEYS[1], 'salt', ARGV[2])
return redis.call('HMGET', KEYS[1], 'version', 'salt')
"""

_HEAD = """
if redis.call('HGET', KEYS[1], 'salt') ~= ARGV[1] then
  return redis.error_reply('GONE the board was emptied')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_FACT = """
local function parts(id)
  local ms, seq = id:match('^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
"""

PUBLISH = (
    _HEAD
    + _FACT
    + """
-- KEYS: board, facts, standing. ARGV: salt, most facts, writer, place, attempt, fact, slot,
-- remaining ms, then for a success or a reset: what ends it (ms, seq), and the slots.
local writer, place, attempt, fact, slot = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*',
  'w', writer, 'p', place, 'a', attempt, 'f', fact)
local function field(name) return place .. '|' .. name end
if slot ~= '' then
  local ends = now + tonumber(ARGV[8])
  local old = redis.call('HGET', KEYS[3], field(slot))
  -- A cooldown never gets shorter: of two, the one that ends later stands.
  if not old or cjson.decode(old)[2] <= ends then
    local kept = cjson.encode({id, ends, writer, attempt, fact})
    redis.call('HSET', KEYS[3], field(slot), kept)
  end
end
for n = 11, #ARGV do
  local old = redis.call('HGET', KEYS[3], field(ARGV[n]))
  if old then
    local ms, seq = parts(cjson.decode(old)[1])
    local upto, last = tonumber(ARGV[9]), tonumber(ARGV[10])
    if ms < upto or (ms == upto and seq <= last) then
      redis.call('HDEL', KEYS[3], field(ARGV[n]))
    end
  end
end
return id
"""
)

HEAR = (
    _HEAD
    + """
-- KEYS: board, facts. ARGV: salt, since, page.
local found = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+', 'COUNT', ARGV[3])) do
  local f = entry[2]
  found[#found + 1] = {entry[1], f[2], f[4], f[6], f[8]}
end
return {tostring(now), found}
"""
)

STANDING = (
    _HEAD
    + """
-- KEYS: board, facts, standing. ARGV: salt. What has ended is forgotten.
local found, all = {}, redis.call('HGETALL', KEYS[3])
for n = 1, #all, 2 do
  local kept = cjson.decode(all[n + 1])
  if kept[2] < now then
    redis.call('HDEL', KEYS[3], all[n])
  else
    found[#found + 1] = {kept[1], kept[3], all[n]:match('^[^|]*'), kept[4], kept[5]}
  end
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {tostring(now), found, last and last[1] or '0-0'}
"""
)

TAKE = (
    _HEAD
    + """
-- KEYS: board, holders, tickets, lane. ARGV: salt, holder, lease ms, whether it holds nothing,
-- cap, ticket or ''. A lease is a member "holder:ticket" of the lane of its place, in the order
-- of tickets; it ends when its holder has not renewed for so long.
local holder, ticket = ARGV[2], ARGV[6]
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 1)
if ARGV[4] == '0' and not redis.call('ZSCORE', KEYS[2], holder) then
  return redis.error_reply('GONE the leases ran out before they were renewed')
end
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[3]), holder)
if ticket == '' then ticket = tostring(redis.call('INCR', KEYS[3])) end
local own = holder .. ':' .. ticket
redis.call('ZADD', KEYS[4], 'NX', ticket, own)
local ahead = 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
  if member == own then break end
  if redis.call('ZSCORE', KEYS[2], member:match('^[^:]*')) then
    ahead = ahead + 1
  else
    redis.call('ZREM', KEYS[4], member)
  end
end
return {ticket, ahead < tonumber(ARGV[5]) and 1 or 0}
"""
)

RENEW = (
    _HEAD
    + """
-- KEYS: board, holders. ARGV: salt, holder, lease ms.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 1)
if not redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  return redis.error_reply('GONE the leases ran out before they were renewed')
end
return redis.call('ZADD', KEYS[2], now + tonumber(ARGV[3]), ARGV[2])
"""
)

GIVE_BACK = (
    _HEAD
    + """
-- KEYS: board, wakes, lane. ARGV: salt, member. Wakes those that wait there.
redis.call('ZREM', KEYS[3], ARGV[2])
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100, '*', 'w', '')
end
return 1
"""
)

LEAVE = (
    _HEAD
    + """
-- KEYS: board, wakes, holders. ARGV: salt, holders... All their leases end.
if redis.call('ZREM', KEYS[3], unpack(ARGV, 2)) > 0 then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100, '*', 'w', '')
end
return 1
"""
)
