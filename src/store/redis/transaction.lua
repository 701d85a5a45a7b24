-- Several writes in several databases, all or none, and only if what they rest on is still there.
-- ARGV: latest time in ms (0 = any), channel and text to announce ('' = none), number of checks,
-- checks {db, key, type, n, n texts}, number of writes, writes {db, n, n texts}.
if redis.replicate_commands then redis.replicate_commands() end
local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end
local function take_list(n)
  local list = {}
  for i = 1, n do list[i] = take() end
  return list
end

local function same(kind, key, expected)
  if redis.call('TYPE', key)['ok'] ~= kind then return false end
  if kind == 'string' then return redis.call('GET', key) == expected[1] end
  if kind == 'none' then return true end
  local got = redis.call(kind == 'hash' and 'HGETALL' or 'SMEMBERS', key)
  if #got ~= #expected then return false end
  local wanted = {}
  if kind == 'hash' then
    for i = 1, #expected, 2 do wanted[expected[i]] = expected[i + 1] end
    for i = 1, #got, 2 do
      if wanted[got[i]] ~= got[i + 1] then return false end
    end
  else
    for i = 1, #expected do wanted[expected[i]] = true end
    for i = 1, #got do
      if not wanted[got[i]] then return false end
    end
  end
  return true
end

local latest = tonumber(take())
local channel, text = take(), take()
if latest > 0 then
  local now = redis.call('TIME')
  if now[1] * 1000 + math.floor(now[2] / 1000) > latest then return 'late' end
end
for _ = 1, tonumber(take()) do
  local db, key, kind, n = take(), take(), take(), tonumber(take())
  local expected = take_list(n)
  redis.call('SELECT', db)
  if kind ~= 'other' and not same(kind, key, expected) then return 'conflict' end
end
if channel ~= '' then redis.pcall('PUBLISH', channel, text) end
for _ = 1, tonumber(take()) do
  local db, n = take(), tonumber(take())
  redis.call('SELECT', db)
  redis.call(unpack(take_list(n)))
end
return 'done'
