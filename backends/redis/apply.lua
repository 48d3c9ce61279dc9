-- Applies one batch, or nothing. KEYS: the watermark, then the containers of rows; behind each
-- sorted set stands its hash of values.
-- ARGV: generation, builder, event expected, new event, epoch, offset, sum, log, types of the
-- containers ('h' or 'z' for each), then operations: letter, container (1 is the first), number of
-- arguments, arguments.
-- Reply: 'applied'; or 'have' and the watermark; 'none'; 'moved', generation; 'lost', why;
-- 'refused', the server's error before anything was written.
local have = redis.call('HMGET', KEYS[1], 'epoch', 'n', 'offset', 'sum', 'log', 'lost', 'gen', 'by')
if not have[1] then
  return {'none'}
end
if moved(have[7], have[8]) then
  return {'moved', have[7] or ''}
end
if have[6] then
  return {'lost', have[6]}
end
if have[1] ~= ARGV[5] or (have[2] or '0') ~= ARGV[3] then
  return {'have', have[1], have[2], have[3], have[4], have[5]}
end

-- Before the first write: every container has as many rows as were left in it. A server that
-- has no memory left or may not write refuses the first write, and allows the others after it.
local was, now, fields = {}, {}, {}
if #KEYS > 1 then
  for i = 2, #KEYS do
    fields[i - 1] = rows(KEYS[1], KEYS[i])
  end
  local counts = redis.call('HMGET', KEYS[1], unpack(fields))
  for i = 1, #fields do
    local n = count(KEYS[i + 1], string.sub(ARGV[9], i, i))
    local why = wrong(KEYS[i + 1], n, counts[i])
    if why then
      return lose(why)
    end
    was[i], now[i] = n, n
  end
end

local failure, wrote = nil, false
local function call(...)
  if failure then
    return 0
  end
  local r = redis.pcall(...)
  if type(r) == 'table' and r.err then
    failure = r.err
    return 0
  end
  wrote = true
  return r
end

-- unpack has room for some 8,000 arguments at most; 1,000 keep pairs together.
local function slices(command, key, from, to)
  local sum = 0
  for i = from, to, 1000 do
    sum = sum + call(command, key, unpack(ARGV, i, math.min(i + 999, to)))
  end
  return sum
end
local function zadd(key, from, to, step)
  local sum = 0
  for i = from, to, 500 * step do
    local args, n = {}, 0
    for j = i, math.min(i + 500 * step - 1, to), step do
      args[n + 1], args[n + 2] = 0, ARGV[j]
      n = n + 2
    end
    sum = sum + call('ZADD', key, unpack(args))
  end
  return sum
end

local i = 10
while i <= #ARGV do
  local op, c, n = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local key, from, to = KEYS[c + 1], i + 3, i + 2 + n
  if op == 'S' then -- put records: id, value, …
    now[c] = now[c] + slices('HSET', key, from, to)
  elseif op == 'D' then -- delete records: id, …
    if now[c] > 0 then
      now[c] = now[c] - slices('HDEL', key, from, to)
    end
  elseif op == 'E' then -- put entries without a value: key, …
    now[c] = now[c] + zadd(key, from, to, 1)
    if now[c + 1] > 0 then
      now[c + 1] = now[c + 1] - slices('HDEL', KEYS[c + 2], from, to)
    end
  elseif op == 'V' then -- put entries: key, value, …
    now[c] = now[c] + zadd(key, from, to, 2)
    now[c + 1] = now[c + 1] + slices('HSET', KEYS[c + 2], from, to)
  elseif op == 'X' then -- delete entries: key, …
    if now[c] > 0 then
      now[c] = now[c] - slices('ZREM', key, from, to)
    end
    if now[c + 1] > 0 then
      now[c + 1] = now[c + 1] - slices('HDEL', KEYS[c + 2], from, to)
    end
  else -- 'I', counters: name, change, …
    for j = from, to, 2 do
      if call('HINCRBY', key, ARGV[j], ARGV[j + 1]) == 0 then
        call('HDEL', key, ARGV[j])
      end
    end
    now[c] = call('HLEN', key)
  end
  i = to + 1
end

local set, n = {'n', ARGV[4], 'offset', ARGV[6], 'sum', ARGV[7], 'log', ARGV[8]}, 8
for c = 1, #fields do
  if now[c] ~= was[c] then
    set[n + 1], set[n + 2] = fields[c], now[c]
    n = n + 2
  end
end
call('HSET', KEYS[1], unpack(set))
if failure then
  if wrote then
    return lose(failure)
  end
  return {'refused', failure}
end
return {'applied'}
