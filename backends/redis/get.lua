-- Reads rows by key. KEYS: the watermark, then containers: hashes, or one sorted set and its
-- hash of values. ARGV: generation, builder, 'h' or 'z', then for each hash a number of keys and
-- the keys.
-- Reply: 'ok', epoch, n, and for each hash a list of values; 'none'; 'moved', generation; 'lost',
-- why.
local have = redis.call('HMGET', KEYS[1], 'epoch', 'n', 'lost', 'gen', 'by')
if not have[1] then
  return {'none'}
end
if (have[4] or '') ~= ARGV[1] or (have[5] or '') ~= ARGV[2] then
  return {'moved', have[4] or ''}
end
if have[3] then
  return {'lost', have[3]}
end

-- That a row is not there is believed only where no other row is missing.
local function whole(key, command)
  local want = tonumber(redis.call('HGET', KEYS[1], '#' .. string.sub(key, #KEYS[1] + #ARGV[1])) or 0)
  local n = redis.pcall(command, key)
  if n == want then
    return nil
  end
  local why = key .. ' has ' .. (type(n) == 'table' and n.err or n) .. ' rows instead of ' .. want
  redis.pcall('HSET', KEYS[1], 'lost', why)
  return why
end

local reply, entries = {'ok', have[1], have[2]}, ARGV[3] == 'z'
local i = 4
for k = entries and 3 or 2, #KEYS do
  local n = tonumber(ARGV[i])
  local values, missing = {}, false
  for from = i + 1, i + n, 1000 do
    local part = redis.pcall('HMGET', KEYS[k], unpack(ARGV, from, math.min(from + 999, i + n)))
    if part.err then
      redis.pcall('HSET', KEYS[1], 'lost', part.err)
      return {'lost', part.err}
    end
    for j = 1, #part do
      values[#values + 1] = part[j]
      missing = missing or not part[j]
    end
  end
  if missing then
    local why = whole(KEYS[k], 'HLEN')
    if not why and entries then
      why = whole(KEYS[2], 'ZCARD')
    end
    if why then
      return {'lost', why}
    end
    if entries then
      for j = 1, n do
        if not values[j] and redis.call('ZSCORE', KEYS[2], ARGV[i + j]) then
          values[j] = ''
        end
      end
    end
  end
  reply[#reply + 1] = values
  i = i + n + 1
end
return reply
