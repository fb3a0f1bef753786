// What the package "yaml" is in a bundle (package.json, "bundle"). Its code travels as text and is
// compiled when a configuration is first read. V8 would look through all of it at each start, which
// costs a ban 5 ms at either end (measured, Node 24), and bans find their configuration settled.
import { compileFunction } from 'node:vm'
import type * as Yaml from 'yaml'
import source from '../../../dist/yaml.txt'

const own = { exports: {} as typeof Yaml }
compileFunction(source, ['module', 'exports', 'require'], { filename: 'yaml' })(
  own,
  own.exports,
  (name: string) => process.getBuiltinModule(name),
)
export const { isMap, isScalar, isSeq, LineCounter, parseDocument, stringify, visit } = own.exports
