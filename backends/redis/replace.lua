-- Puts what was built in the place of a partition. KEYS: the partition's watermark, that of what
-- was built, then every container that can be of what was built. ARGV: generation, builder, types
-- of the containers.
-- Reply: 'ok', generations that are to be removed; 'moved', generation; 'none'; 'lost', why;
-- 'refused', the server's error before anything was written.
local built, is = {}, redis.call('HGETALL', KEYS[2])
for i = 1, #is, 2 do
  built[is[i]] = is[i + 1]
end
local have = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'old', 'gens')
if not built.epoch then
  if have[2] == ARGV[1] then -- it was done, and the reply was lost
    return {'ok', have[3] or ''}
  end
  return {'none'}
end
if built.gen ~= ARGV[1] or built.by ~= ARGV[2] then
  return {'moved', built.gen}
end
if built.lost then
  return {'lost', built.lost}
end
for i = 3, #KEYS do
  local why = wrong(KEYS[i], count(KEYS[i], string.sub(ARGV[3], i - 2, i - 2)), built[rows(KEYS[2], KEYS[i])])
  if why then
    return {'lost', why}
  end
end

local old = (have[2] or '') == '' and '-' or have[2]
if have[3] then
  old = have[3] .. ' ' .. old
end
local gens = math.max(tonumber(have[4] or 0), tonumber(string.match(ARGV[1], '%d+')))
local set, n = {'old', old, 'gens', gens}, 4
for field, value in pairs(built) do
  local about = field == 'epoch' or field == 'about'
  if field ~= 'by' and not (about and have[1]) then -- the partition keeps its epoch
    set[n + 1], set[n + 2] = field, value
    n = n + 2
  end
end
-- A server that has no memory left, or may not write, refuses this and nothing was done; it
-- refuses none of what follows.
local done = redis.pcall('HSET', KEYS[1], unpack(set))
if type(done) == 'table' and done.err then
  return {'refused', done.err}
end
local gone = {}
local now = redis.call('HGETALL', KEYS[1])
for i = 1, #now, 2 do
  local field = now[i]
  local told = field == 'n' or field == 'offset' or field == 'sum' or field == 'log' or string.sub(field, 1, 1) == '#'
  if field == 'lost' or told and not built[field] then
    gone[#gone + 1] = field
  end
end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
end
redis.call('UNLINK', KEYS[2])
return {'ok', old}
