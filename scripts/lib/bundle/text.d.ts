/** What esbuild's loader "text" makes of a file. */
declare module '*.txt' {
  const text: string
  export = text
}
