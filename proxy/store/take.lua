-- Takes all of the claims or none.
-- KEYS: the exchange's reservation, then each claim's key.
-- ARGV: the exchange, milliseconds that a slot lasts, then of each claim: kind, limit, amount, milliseconds.
-- Returns the place of the first claim that does not fit (0: all are taken; -1: this exchange was asked for before),
-- then of each claim how much remains, and if one was refused the milliseconds until it fits.
local SLICES = 60
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function window_used(key, width)
  local oldest = math.floor(now / width) - SLICES
  local kept = redis.call('HMGET', key, 'first', 'used')
  local first, used = tonumber(kept[1]), tonumber(kept[2])
  if not first or oldest - first > SLICES then
    redis.call('DEL', key)
    redis.call('HSET', key, 'first', oldest, 'used', 0)
    return 0
  end
  for number = first, oldest - 1 do
    used = used - (tonumber(redis.call('HGET', key, number)) or 0)
    redis.call('HDEL', key, number)
  end
  if first < oldest then redis.call('HSET', key, 'first', oldest, 'used', used) end
  return used
end

local function window_wait(key, width, over)
  local number = tonumber(redis.call('HGET', key, 'first'))
  for n = number, number + SLICES do
    over = over - (tonumber(redis.call('HGET', key, n)) or 0)
    if over <= 0 then return (n + SLICES + 1) * width - now end
  end
  return SLICES * width
end

if redis.call('EXISTS', KEYS[1]) == 1 then return {-1} end

local claims, refused = {}, 0
for i = 2, #KEYS do
  local at = 4 * i - 5
  local claim = {key = KEYS[i], kind = ARGV[at], limit = tonumber(ARGV[at + 1]), amount = tonumber(ARGV[at + 2]), ms = tonumber(ARGV[at + 3])}
  if claim.kind == 'window' then
    claim.used = window_used(claim.key, claim.ms / SLICES)
  elseif claim.kind == 'slot' then
    redis.call('ZREMRANGEBYSCORE', claim.key, '-inf', now)
    claim.used = redis.call('ZCARD', claim.key)
  else
    claim.used = tonumber(redis.call('GET', claim.key)) or 0
  end
  if refused == 0 and claim.used + claim.amount > claim.limit then refused = i - 1 end
  claims[i - 1] = claim
end

local answer = {refused}
if refused > 0 then
  for _, claim in ipairs(claims) do
    local over, wait = claim.used + claim.amount - claim.limit, 0
    if over > 0 and claim.kind == 'window' then wait = window_wait(claim.key, claim.ms / SLICES, over) end
    if over > 0 and claim.kind == 'total' then wait = math.max(redis.call('PTTL', claim.key), 0) end
    answer[#answer + 1] = math.max(claim.limit - claim.used, 0)
    answer[#answer + 1] = math.ceil(wait)
  end
  return answer
end

for _, claim in ipairs(claims) do
  if claim.kind == 'window' then
    redis.call('HINCRBY', claim.key, math.floor(now / (claim.ms / SLICES)), claim.amount)
    redis.call('HINCRBY', claim.key, 'used', claim.amount)
    redis.call('PEXPIRE', claim.key, math.ceil(claim.ms * 1.1) + 1000)
  elseif claim.kind == 'slot' then
    redis.call('ZADD', claim.key, now + ARGV[2], ARGV[1])
    redis.call('PEXPIRE', claim.key, ARGV[2] * 2)
  else
    redis.call('INCRBY', claim.key, claim.amount)
    if redis.call('PTTL', claim.key) < 0 then redis.call('PEXPIRE', claim.key, math.ceil(claim.ms)) end
  end
  answer[#answer + 1] = claim.limit - claim.used - claim.amount
end
redis.call('SET', KEYS[1], now, 'EX', 21600)
return answer
