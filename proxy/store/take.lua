-- Takes all of the claims or none.
-- KEYS: the exchange's reservation, then each claim's key.
-- ARGV: the exchange, milliseconds that a slot lasts, then of each claim: kind, limit, amount, milliseconds.
-- Returns the place of the claim that does not fit, of several the one that has to wait longest (0: all are taken;
-- -1: this exchange was asked for before), the milliseconds that it has to wait, and what remains of each limit.
local KINDS = {window = {}, slot = {}, total = {}}

function KINDS.window.used(claim)
  local used
  used, claim.oldest, claim.is_new = window_used(claim.key, claim.ms)
  return used
end

function KINDS.window.wait(claim, over)
  local width = claim.ms / SLICES
  for number = claim.oldest, claim.oldest + SLICES do
    over = over - (tonumber(redis.call('HGET', claim.key, number)) or 0)
    if over <= 0 then return (number + SLICES + 1) * width - now end
  end
  return claim.ms
end

function KINDS.window.take(claim)
  local number = math.floor(now / (claim.ms / SLICES))
  add_to_window(claim.key, claim.ms, number, claim.amount, claim.oldest, claim.is_new)
end

function KINDS.slot.used(claim)
  redis.call('ZREMRANGEBYSCORE', claim.key, '-inf', now)
  return redis.call('ZCARD', claim.key)
end

function KINDS.slot.wait() return 0 end

function KINDS.slot.take(claim)
  redis.call('ZADD', claim.key, now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', claim.key, ARGV[2] * 2)
end

function KINDS.total.used(claim) return tonumber(redis.call('GET', claim.key)) or 0 end

function KINDS.total.wait(claim) return math.max(redis.call('PTTL', claim.key), 0) end

function KINDS.total.take(claim)
  redis.call('INCRBY', claim.key, claim.amount)
  if redis.call('PTTL', claim.key) < 0 then redis.call('PEXPIRE', claim.key, claim.ms) end
end

if redis.call('EXISTS', KEYS[1]) == 1 then return {-1} end

local claims, refused, longest = {}, 0, -1
for i = 2, #KEYS do
  local at = 4 * i - 5
  local kind, limit, amount = KINDS[ARGV[at]], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local claim = {key = KEYS[i], kind = kind, limit = limit, amount = amount, ms = tonumber(ARGV[at + 3])}
  claim.used = kind.used(claim)
  local over = claim.used + amount - limit
  local wait = over > 0 and kind.wait(claim, over) or -1
  if wait > longest then refused, longest = i - 1, wait end
  claims[i - 1] = claim
end

local answer = {refused, math.max(math.ceil(longest), 0)}
for i, claim in ipairs(claims) do
  if refused > 0 then
    answer[i + 2] = math.max(claim.limit - claim.used, 0)
  else
    claim.kind.take(claim)
    answer[i + 2] = claim.limit - claim.used - claim.amount
  end
end
if refused == 0 then redis.call('SET', KEYS[1], now, 'EX', 21600) end
return answer
