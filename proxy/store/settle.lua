-- Sets what an exchange has used to what it really was; once, however often it is asked.
-- KEYS: the exchange's reservation, then each claim's key.
-- ARGV: `sure` where the claims were granted, or `unsure` where nobody knows whether they arrived, then of each claim:
-- kind, the amount that was claimed, what was used, milliseconds.
local SLICES = 60
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reserved = redis.call('GET', KEYS[1])

if ARGV[1] == 'sure' then
  if not reserved then return 0 end
  redis.call('DEL', KEYS[1])
else
  if reserved == 'settled' then return 0 end
  redis.call('SET', KEYS[1], 'settled', 'EX', 600)
end

local function correct_window(key, ms, more)
  local width = ms / SLICES
  local current = math.floor(now / width)
  local number = math.floor((tonumber(reserved) or now) / width)
  local first = tonumber(redis.call('HGET', key, 'first'))
  if not first or number < math.max(first, current - SLICES) then
    if more <= 0 then return end
    number = current
  end
  if more < 0 then more = math.max(more, -(tonumber(redis.call('HGET', key, number)) or 0)) end
  if not first then redis.call('HSET', key, 'first', number) end
  redis.call('HINCRBY', key, number, more)
  redis.call('HINCRBY', key, 'used', more)
  redis.call('PEXPIRE', key, math.ceil(ms * 1.1) + 1000)
end

local function correct_total(key, ms, more)
  local total = redis.call('INCRBY', key, more)
  if total < 0 then redis.call('INCRBY', key, -total) end
  if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, math.ceil(ms)) end
end

for i = 2, #KEYS do
  local at = 4 * i - 6
  local used, ms = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local more = reserved and used - ARGV[at + 1] or used
  if more ~= 0 and ARGV[at] == 'window' then correct_window(KEYS[i], ms, more) end
  if more ~= 0 and ARGV[at] == 'total' then correct_total(KEYS[i], ms, more) end
end
return 1
