-- Pages through occupied channels in order.
-- ARGV   prefix or '', name to go on after or '', limit
-- reply  ok, {channel, count, ...}, last channel looked at or ''
local below, after, limit = unpack(ARGV, 7)

-- '0' is the character that follows '/'.
local first, last = '-', '+'
if below ~= '' then
  first, last = '[/' .. below .. '/', '(/' .. below .. '0'
end
if after ~= '' then
  first = '(' .. after
end
local names = redis.call('ZRANGEBYLEX', key('occupied'), first, last, 'LIMIT', 0, limit)
local found = {}
for _, name in ipairs(names) do
  local count = redis.pcall('HGET', key('channel', name), 'count')
  if type(count) == 'string' and tonumber(count) then
    found[#found + 1] = name
    found[#found + 1] = tonumber(count)
  end
end
return {'ok', found, names[tonumber(limit)] or ''}
