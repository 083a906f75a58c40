-- The windows of take.lua and settle.lua, which this is put before.
-- A window is a hash: each slice's number with its amount, `used` their sum, and `first`: no slice is before it.
local SLICES = 60
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- What is used, after what is too old was let go, and the oldest slice that counts; `is_new`: there is no window.
local function window_used(key, ms)
  local oldest = math.floor(now / (ms / SLICES)) - SLICES
  local kept = redis.call('HMGET', key, 'first', 'used')
  local first, used = tonumber(kept[1]), tonumber(kept[2])
  if not first or oldest - first > SLICES then return 0, oldest, true end
  for number = first, oldest - 1 do
    used = used - (tonumber(redis.call('HGET', key, number)) or 0)
    redis.call('HDEL', key, number)
  end
  if first < oldest then redis.call('HSET', key, 'first', oldest, 'used', used) end
  return used, oldest, false
end

local function add_to_window(key, ms, number, amount, oldest, is_new)
  if is_new then
    redis.call('DEL', key)
    redis.call('HSET', key, 'first', oldest)
  end
  redis.call('HINCRBY', key, number, amount)
  redis.call('HINCRBY', key, 'used', amount)
  redis.call('PEXPIRE', key, math.ceil(ms * 1.1) + 1000)
end

