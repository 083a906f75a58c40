-- Sets what an exchange has used to what it really was; once, however often it is asked.
-- KEYS: the exchange's reservation, then each claim's key.
-- ARGV: `sure` where the claims were granted, or `unsure` where nobody knows whether they arrived; how many
-- milliseconds ago they were taken, and how many ago what was used became known; then of each claim: kind, the amount
-- that was claimed, what was used, milliseconds.
local reserved = redis.call('GET', KEYS[1])

if reserved == 'settled' then return 0 end
if ARGV[1] == 'sure' then
  if not reserved then return 0 end
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], 'settled', 'EX', 600)
end
local taken_at, known_at = tonumber(reserved) or now - ARGV[2], now - ARGV[3]

-- What has no place any more where it was taken counts from when it was known; what is too old for that, not at all.
local function correct_window(key, ms, more)
  local width, used, oldest, is_new = ms / SLICES, window_used(key, ms)
  local number = math.floor(taken_at / width)
  if number < oldest then
    number = math.floor(known_at / width)
    if number < oldest or more < 0 then return end
  end
  if more < 0 then more = math.max(more, -(tonumber(redis.call('HGET', key, number)) or 0)) end
  if more ~= 0 then add_to_window(key, ms, number, more, oldest, is_new) end
end

local function correct_total(key, ms, more)
  more = math.max(more, -(tonumber(redis.call('GET', key)) or 0))
  if more == 0 then return end
  redis.call('INCRBY', key, more)
  if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, ms) end
end

for i = 2, #KEYS do
  local at = 4 * i - 4
  local used, ms = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local more = reserved and used - ARGV[at + 1] or used
  if more ~= 0 and ARGV[at] == 'window' then correct_window(KEYS[i], ms, more) end
  if more ~= 0 and ARGV[at] == 'total' then correct_total(KEYS[i], ms, more) end
end
return 1
